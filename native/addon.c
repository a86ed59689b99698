/* Entry point of build/hull.node. The functions are described in src/host/native.ts. */
#include "common.h"

static napi_value init(napi_env env, napi_value exports) {
  bool ok = mount_register(env, exports) && paths_register(env, exports) && net_register(env, exports) &&
            streams_register(env, exports) && process_register(env, exports) && spawn_register(env, exports) && tree_register(env, exports) && replace_register(env, exports) && userns_register(env, exports) &&
            memory_register(env, exports) && clock_register(env, exports);
  if (!ok) napi_throw_error(env, NULL, "hull.node: registration failed");
  return exports;
}

NAPI_MODULE(hull, init)
