#pragma once

namespace tessera {

/// From now on SIGTERM, SIGINT and SIGUSR1 (what Slurm's --signal is usually set to) ask for an orderly end;
/// a second one ends the process at once, with exit code 128 + its number.
void catch_stop_signals();

/// The signal that asked this process to stop, 0 if none did.
int stop_signal();

/// "SIGTERM", for messages.
const char* signal_name(int number);

}  // namespace tessera
