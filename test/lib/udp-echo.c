/* udp-echo PORT: sends every datagram back. Debian's busybox has no UDP server. */
#include <arpa/inet.h>
#include <stdlib.h>
#include <sys/socket.h>

int main(int argc, char **argv)
{
	char buffer[2048];
	struct sockaddr_in here = { .sin_family = AF_INET };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	here.sin_port = htons(argc > 1 ? atoi(argv[1]) : 7);
	if (fd < 0 || bind(fd, (struct sockaddr *)&here, sizeof(here)) < 0)
		return 1;
	for (;;) {
		struct sockaddr_in peer;
		socklen_t size = sizeof(peer);
		ssize_t got = recvfrom(fd, buffer, sizeof(buffer), 0, (struct sockaddr *)&peer, &size);

		if (got < 0 || sendto(fd, buffer, got, 0, (struct sockaddr *)&peer, size) < 0)
			return 1;
	}
}
