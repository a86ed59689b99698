#ifndef HULL_FUNCTIONS_H
#define HULL_FUNCTIONS_H

/*
 * `hull-surface functions [-b KIB] PID[,PID…] [COMMAND…]`: the functions of the kernel that these processes, all below them and all that they start call while COMMAND runs, or until stdin ends:
 * their names, one a line, once each function. "tracing …" on stderr when it has begun. Exit codes: 0; 1: it cannot be done, and why, on stderr; 3: the kernel lost events (-b makes the buffers
 * of each processor larger); 130: a signal ended it. The instance of the tracer is gone in any case but SIGKILL; then the next takes it away.
 */
int functions(int argc, char **argv);

#endif
