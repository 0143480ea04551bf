/* Where callgrind counts: from n4a_start to n4a_stop, dumped under a name. */
#include <valgrind/callgrind.h>

void n4a_start(void) {
    CALLGRIND_START_INSTRUMENTATION;
    CALLGRIND_ZERO_STATS;
}
void n4a_stop(const char *name) {
    CALLGRIND_DUMP_STATS_AT(name);
    CALLGRIND_STOP_INSTRUMENTATION;
}
