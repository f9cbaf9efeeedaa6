"""Runs a table of checks within a budget of time: none can stop or outlast the others, and what is known is on disk at once."""
import json
import os
import pathlib
import signal
import subprocess
import tarfile
import time
import traceback
from dataclasses import dataclass, field
from typing import Callable


class Failed(Exception):
    """The check found a fault; the text says which."""


class Skipped(Exception):
    """The check cannot be made here; the text says why."""


class TimeIsUp(Failed):
    """A command did not end within its limit."""


@dataclass(frozen=True)
class Check:
    """`run(kit)` returns what is worth knowing of a success, or raises Failed or Skipped."""
    name: str
    run: Callable
    limit: float  # seconds
    needs: tuple = ()  # names that kit.lacks() knows


@dataclass
class Finished:
    code: int  # of a killed process: minus the signal's number
    output: str  # of both streams
    seconds: float


def end_session(leader):
    """Kills all processes of a session, also those that mpirun put into groups of their own."""
    for folder in pathlib.Path("/proc").iterdir():
        try:
            # "pid (name) state parent group session …": names may hold spaces and brackets
            if folder.name.isdigit() and int((folder / "stat").read_text().rpartition(")")[2].split()[3]) == leader:
                os.kill(int(folder.name), signal.SIGKILL)
        except (OSError, ValueError, IndexError):
            continue  # it ended meanwhile


def wait(process, limit, kill_when):
    """Whether the process ended, or was killed as soon as `kill_when()` held, within `limit` seconds."""
    end = time.monotonic() + limit
    while process.poll() is None:
        if kill_when is not None and kill_when():
            process.kill()
            process.wait()
        elif time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def run_command(command, log, limit, kill_when=None, **options):
    """Runs a command in a session of its own, its output going to the end of the file `log`; TimeIsUp when it is killed for
    its `limit` of seconds. `kill_when()`, asked fifty times a second, has it killed on purpose."""
    start = time.monotonic()
    with log.open("ab") as file:
        file.write(f"$ {' '.join(map(str, command))}\n".encode())
        file.flush()
        begin = file.tell()
        process = subprocess.Popen([str(word) for word in command], stdout=file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                                   start_new_session=True, **options)
        try:
            ended = wait(process, limit, kill_when)
        finally:
            end_session(process.pid)
            process.wait()
    seconds = time.monotonic() - start
    with log.open("rb") as file:
        file.seek(begin)
        output = file.read().decode(errors="replace")
    if not ended:
        raise TimeIsUp(f"killed after {seconds:.0f} s: {pathlib.Path(str(command[0])).name}")
    return Finished(process.returncode, output, seconds)


@dataclass
class Results:
    """One line a check on the screen, and results.json in `folder`, whole after every line."""
    folder: pathlib.Path
    facts: dict = field(default_factory=dict)
    checks: list = field(default_factory=list)

    def add(self, name, verdict, seconds, reason, values):
        print(f"{verdict} {name} {seconds:.1f} {reason}".rstrip(), flush=True)
        self.checks.append({"name": name, "verdict": verdict, "seconds": round(seconds, 2), "reason": reason, "values": values})
        self.write()

    def write(self):
        fresh = self.folder / "results.json.new"
        fresh.write_text(json.dumps({"facts": self.facts, "checks": self.checks}, indent=1))
        fresh.replace(self.folder / "results.json")

    def count(self, verdict):
        return sum(each["verdict"] == verdict for each in self.checks)


def log_name(name):
    return name.replace("/", "-") + ".log"


def judge(check, kit, deadline):
    """(verdict, reason) of one check; whatever it does, this returns."""
    reason = next((why for why in map(kit.lacks, check.needs) if why), None)
    if reason:
        return "SKIP", reason
    if deadline - time.monotonic() < 1:
        return "SKIP", "no time left in the budget"
    kit.begin(check.name, min(deadline, time.monotonic() + check.limit))
    try:
        return "PASS", check.run(kit) or ""
    except Skipped as skipped:
        return "SKIP", str(skipped)
    except TimeIsUp as late:
        cut = time.monotonic() >= deadline - 0.5
        return ("SKIP", f"no time left in the budget: {late}") if cut else ("FAIL", str(late))
    except Failed as failed:
        return "FAIL", str(failed)
    except Exception as error:  # a fault of the check itself: as bad, and no reason to stop either
        kit.log(traceback.format_exc())
        return "FAIL", f"{type(error).__name__}: {error}"


def chosen(checks, only):
    """Those whose name begins with one of the words; all where there are none. KeyError for a word that names nothing."""
    unknown = [word for word in only if not any(check.name.startswith(word) for check in checks)]
    if unknown:
        raise KeyError(f"no check begins with {', '.join(unknown)}; valid: {', '.join(check.name for check in checks)}")
    return [check for check in checks if not only or any(check.name.startswith(word) for word in only)]


def run_all(checks, kit, results, budget):
    """Every check in turn; those that find the budget spent are skipped. Returns the number that failed."""
    deadline = time.monotonic() + budget
    for check in checks:
        start = time.monotonic()
        kit.values = {}
        verdict, reason = judge(check, kit, deadline)
        results.add(check.name, verdict, time.monotonic() - start, " ".join(reason.split()), kit.values)
    return results.count("FAIL")


def pack_results(results, logs, path, most_of_a_log=256 << 10):
    """The file `results` and the end of every log in one small file, `path`."""
    with tarfile.open(path, "w:gz") as tar:
        tar.add(results, "results/results.json")
        for log in sorted(logs.glob("*.log")):
            data = log.read_bytes()
            if len(data) > most_of_a_log:
                log.write_bytes(b"(only the end is kept)\n" + data[-most_of_a_log:])
            tar.add(log, f"results/logs/{log.name}")
