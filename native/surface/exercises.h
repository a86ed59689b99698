#ifndef HULL_EXERCISES_H
#define HULL_EXERCISES_H

/* What fails has been asked all the same. */
#define TRY(call) ((void)!(call))

/* Each is bounded in time, cleans up behind itself, and goes on where something fails. */
void exercise_files(void);
void exercise_memory(void);
void exercise_processes(void);
void exercise_time(void);
void exercise_sockets(void);
void exercise_kernel(void);
void exercise_network(void);

#endif
