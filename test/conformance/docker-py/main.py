"""The checks of docker-py's public behaviour, against the daemon of DOCKER_HOST. See harness.main for how to run a part of them."""
import containers  # noqa: F401
import events  # noqa: F401
import exec  # noqa: F401
import images  # noqa: F401
import networks  # noqa: F401
import options  # noqa: F401
import system  # noqa: F401
import volumes  # noqa: F401
from harness import main

main()
