#ifndef HULL_EXERCISE_H
#define HULL_EXERCISE_H

/* The end of the program that a round starts as a child: `hull-surface nothing`. */
#define CHILD_WORD "nothing"

/*
 * A workload that is the same wherever it runs: what an ordinary program does with files, memory, processes, time, sockets and, where there is a gateway, the network. What fails there (a read-only root,
 * no network) is left out: it has been asked all the same. "done" on stdout when it is over.
 */
void exercise_when_told(void);     /* by a line "go" on stdin, each time; until stdin ends */
void exercise_when_signalled(void); /* by SIGUSR1 (docker kill -s USR1), each time; for ever: who traces it does not want to see its end */

#endif
