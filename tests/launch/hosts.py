"""Several hosts on one machine: network namespaces joined by a bridge, each with a host name and an sshd of its own."""
import contextlib
import os
import pathlib
import secrets
import shutil
import signal
import subprocess
import tempfile
import time

PORT = 2022


def why_not():
    """The reason for which this machine cannot play several hosts; None where it can."""
    for program in ("ip", "unshare", "sshd", "ssh", "ssh-keygen"):
        if not find(program):
            return f"{program} is not installed (launch/setup --tests installs it)"
    name = f"tsr-{secrets.token_hex(3)}"
    probe = subprocess.run(f"ip netns add {name} && ip link add {name} type bridge && ip link del {name} && "
                           f"ip netns exec {name} unshare --uts true; status=$?; ip netns del {name}; exit $status",
                           shell=True, capture_output=True, text=True, env=with_sbin())
    if probe.returncode:
        return f"this process may not make network namespaces: {probe.stderr.strip().splitlines()[-1:]}"
    return None


def with_sbin():
    return {**os.environ, "PATH": os.environ["PATH"] + ":/usr/sbin:/sbin"}


def find(program):
    return shutil.which(program, path=with_sbin()["PATH"])


class Hosts:
    """Hosts tessera-a, -b, …; `run` starts a command on the first of them, which reaches the others over ssh."""

    def __init__(self, count, folder):
        self.tag = secrets.token_hex(2)
        self.bridge = f"tsr{self.tag}"
        self.subnet = f"10.{77 + secrets.randbelow(100)}.{secrets.randbelow(250)}"
        self.names = [f"tessera-{letter}" for letter in "abcdefgh"[:count]]
        self.folder = pathlib.Path(folder)
        self.servers = []

    def namespace(self, host):
        return f"tsr{self.tag}{host}"

    def address(self, host):
        return f"{self.subnet}.{host + 1}"

    def start(self):
        command(f"ip link add {self.bridge} type bridge && ip link set {self.bridge} up")
        for name in ("host_key", "user_key"):
            command(f"ssh-keygen -q -t ed25519 -N '' -f {self.folder / name}")
        known = (self.folder / "host_key.pub").read_text().split()[:2]
        (self.folder / "known_hosts").write_text("".join(
            f"[{name}]:{PORT} {' '.join(known)}\n" for name in self.names))
        os.makedirs("/run/sshd", exist_ok=True)  # sshd insists
        for host in range(len(self.names)):
            self.start_host(host)
        for host in range(len(self.names)):
            self.wait_for(host)
        return self

    def start_host(self, host):
        name, inside, outside = self.namespace(host), f"{self.bridge}i", f"{self.bridge}o{host}"
        own = pathlib.Path("/etc/netns") / name  # `ip netns exec` lays its files over those of /etc
        own.mkdir(parents=True)
        (own / "hosts").write_text("127.0.0.1 localhost\n" + "".join(
            f"{self.address(i)} {other}\n" for i, other in enumerate(self.names)))
        command(f"ip netns add {name} && ip link add {outside} type veth peer name {inside} netns {name} && "
                f"ip link set {outside} master {self.bridge} up && ip -n {name} link set lo up && "
                f"ip -n {name} addr add {self.address(host)}/24 dev {inside} && ip -n {name} link set {inside} up")
        (self.folder / f"sshd_config{host}").write_text(
            f"Port {PORT}\nListenAddress {self.address(host)}\nHostKey {self.folder / 'host_key'}\nPidFile none\n"
            f"AuthorizedKeysFile {self.folder / 'user_key.pub'}\nStrictModes no\nPasswordAuthentication no\n"
            "PermitRootLogin yes\nUsePAM no\n")
        log = open(self.folder / f"sshd{host}.log", "w")
        self.servers.append(subprocess.Popen(
            [*self.enter(host), find("sshd"), "-D", "-e", "-f", str(self.folder / f"sshd_config{host}")],
            stdout=log, stderr=log, start_new_session=True, env=with_sbin()))

    def enter(self, host):
        """The words before a command that runs on `host`."""
        return ["ip", "netns", "exec", self.namespace(host), "unshare", "--uts", "sh", "-c",
                f'hostname {self.names[host]} && exec "$@"', "sh"]

    def wait_for(self, host):
        deadline = time.monotonic() + 10
        while subprocess.run([*self.enter(0), "bash", "-c", f"exec 3<>/dev/tcp/{self.address(host)}/{PORT}"],
                             capture_output=True, env=with_sbin()).returncode:
            assert time.monotonic() < deadline, (self.folder / f"sshd{host}.log").read_text()
            time.sleep(0.1)

    def mpirun(self, ranks_per_host):
        """The words before a program that runs on all hosts."""
        hostfile = self.folder / "hostfile"
        hostfile.write_text("".join(f"{name} slots={ranks_per_host}\n" for name in self.names))
        agent = (f"ssh -p {PORT} -i {self.folder / 'user_key'} -o UserKnownHostsFile={self.folder / 'known_hosts'} "
                 "-o StrictHostKeyChecking=yes -o BatchMode=yes -o ConnectTimeout=10")
        network = f"{self.subnet}.0/24"
        return [*self.enter(0), "mpirun", "--allow-run-as-root", "--hostfile", str(hostfile), "--bind-to", "none",
                "--mca", "plm_rsh_agent", agent, "--mca", "oob_tcp_if_include", network,
                "--mca", "btl_tcp_if_include", network, "-n", str(ranks_per_host * len(self.names))]

    def processes(self):
        """{pid: environment} of everything that runs in the namespaces."""
        found = {}
        for host in range(len(self.names)):
            listed = subprocess.run(["ip", "netns", "pids", self.namespace(host)], capture_output=True, text=True,
                                    env=with_sbin())
            for pid in map(int, listed.stdout.split()):
                with contextlib.suppress(OSError):
                    text = pathlib.Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
                    found[pid] = dict(item.split("=", 1) for item in text.split("\0") if "=" in item)
        return found

    def stop(self):
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        for server in self.servers:
            server.wait()
        for host in range(len(self.names)):
            command(f"ip netns del {self.namespace(host)}", check=False)
            command(f"ip link del {self.bridge}o{host}", check=False)
            shutil.rmtree(f"/etc/netns/{self.namespace(host)}", ignore_errors=True)
        command(f"ip link del {self.bridge}", check=False)
        with contextlib.suppress(OSError):
            os.rmdir("/etc/netns")  # unless others use it


def command(text, check=True):
    done = subprocess.run(text, shell=True, capture_output=True, text=True, env=with_sbin())
    assert not check or done.returncode == 0, f"{text}: {done.stderr}"


@contextlib.contextmanager
def hosts(count):
    """Starts them, and leaves nothing of them behind."""
    with tempfile.TemporaryDirectory(prefix="tessera-hosts-") as folder:
        machine = Hosts(count, folder)
        try:
            yield machine.start()
        finally:
            machine.stop()
