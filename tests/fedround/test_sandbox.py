"""What a program in a sandbox cannot do, tried by programs that try."""

from __future__ import annotations

import os
import platform
import signal
import subprocess
import sys
import time
import types
from pathlib import Path

import psutil
import pytest

from fedround import sandbox
from fedround.sandbox import Sandbox

pytestmark = pytest.mark.skipif(sandbox.lacking() is not None, reason=str(sandbox.lacking()))
PYTHON = (sys.prefix, sys.base_prefix)


def tried(code: str, folder: Path, **allowed: object) -> subprocess.CompletedProcess[str]:
    """The program run with `folder` to write to."""
    command = sandbox.command(Sandbox(read=PYTHON, write=(str(folder),), **allowed), [sys.executable, "-I", "-c", code])
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False, env={"PATH": os.defpath})


def test_what_it_may_it_can(tmp_path):
    (tmp_path / "given").write_text("7")
    code = """import os, resource; os.nice(0); resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
print(int(open('given').read()) * 6); open('made', 'w').write('done')
import subprocess; print(subprocess.run(['/bin/echo', 'other'], capture_output=True, text=True).stdout)"""
    done = tried(code, tmp_path)
    assert (done.returncode, done.stdout.split()) == (0, ["42", "other"])
    assert (tmp_path / "made").read_text() == "done"


@pytest.mark.parametrize("what", [
    "import socket; socket.socket()",
    "import socket; socket.socket(socket.AF_UNIX)",
    "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
    "import os; os.setsid()",
    "import os; os.setpgid(0, 0)",
    "import os; os.kill(os.getppid(), 0)",
    "import os; open(f'/proc/{os.getppid()}/environ').read()",
    "import os; open(f'/proc/{os.getppid()}/mem', 'rb').read(1)",
    "open('/etc/passwd').read()",
    "import os; os.listdir('/')",
    "open('/usr/fedround-was-here', 'w')",
    "open('/dev/shm/fedround-was-here', 'w')",
    "import os; os.rename('/usr/lib', '/usr/lib2')",
    "import resource, os; resource.prlimit(os.getppid(), resource.RLIMIT_CORE, (0, 0))",
    "import os; os.setpriority(os.PRIO_PROCESS, os.getppid(), 19)",
    "import os; os.setpriority(os.PRIO_USER, 0, 19)",
    "import resource, os; resource.prlimit(1, resource.RLIMIT_CPU)",
    "import os; os.unlink('/usr/bin/env')",
    "import os; os.symlink('/etc/passwd', 'link'); open('link').read()",
    "import os; os.link('/etc/passwd', 'link')"])
def test_attack_what_it_may_not_it_cannot(tmp_path, what):
    done = tried(what, tmp_path)
    assert done.returncode == 1, done.stdout + done.stderr
    assert any(word in done.stderr for word in ("PermissionError", "OSError", "IsADirectoryError")), done.stderr


def test_every_call_of_the_table_is_refused(tmp_path):
    numbers = [both[list(sandbox._MACHINES).index(platform.machine())] for both in sandbox._DENIED.values()]
    code = f"""import ctypes, errno; libc = ctypes.CDLL(None, use_errno=True)
print([number for number in {numbers} if libc.syscall(number, *[-1] * 6) != -1 or ctypes.get_errno() != errno.EACCES])"""
    assert tried(code, tmp_path).stdout.strip() == "[]"


def test_attack_rights_and_times_of_files_outside_stay(tmp_path):
    outside, inside = tmp_path / "key", tmp_path / "scratch"
    outside.write_text("secret")
    outside.chmod(0o600)
    inside.mkdir()
    before = outside.stat()
    done = tried(f"import os; os.chmod({str(outside)!r}, 0o666); os.utime({str(outside)!r}, (1, 1)); "
                 f"os.chown({str(outside)!r}, 1, 1)", inside)
    after = outside.stat()
    assert done.returncode == 0
    assert (after.st_mode, after.st_mtime_ns, after.st_uid) == (before.st_mode, before.st_mtime_ns, before.st_uid)


def test_root_has_no_privilege_in_it(tmp_path):
    said = dict(line.split(":\t") for line in tried("print(open('/proc/self/status').read())", tmp_path).stdout.splitlines()
                if ":\t" in line)
    assert {int(said[name], 16) for name in ("CapEff", "CapPrm", "CapInh", "CapAmb")} == {0}


def test_attack_a_child_of_it_can_no_more(tmp_path):
    code = """import subprocess, sys
raise SystemExit(subprocess.run([sys.executable, '-I', '-c', 'import socket; socket.socket()']).returncode)"""
    assert tried(code, tmp_path).returncode == 1


def test_of_a_checkout_it_reads_modules_and_of_libraries_everything(tmp_path, monkeypatch):
    checkout, libraries = tmp_path / "checkout", tmp_path / "lib" / "site-packages"
    for path in (checkout / "package" / "__init__.py", checkout / "module.py", checkout / "site" / "keys.pem",
                 libraries / "numpy.libs" / "blas.so"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    editable = tmp_path / "editable" / "mine"
    editable.mkdir(parents=True)
    mine = types.ModuleType("mine")
    mine.__file__, mine.__path__ = str(editable / "__init__.py"), [str(editable)]
    monkeypatch.setattr(sys, "modules", {"mine": mine, "sys": sys, "mine.deep": mine})
    monkeypatch.setattr(sys, "path", [str(checkout), str(libraries), str(tmp_path / "gone"), ""])
    read, names = sandbox.own_python()
    assert set(read) - set(PYTHON) == {str(checkout / "package"), str(checkout / "module.py"), str(libraries), str(editable)}
    assert names == (str(checkout),)


def test_an_editable_install_reads_rows_in_it(tmp_path):
    """As the commands of a checkout do: nothing of it is on the path, a finder knows where it is."""
    root = Path(sandbox.__file__).parents[1]
    code = f"""import importlib.machinery, sys
class Finder:
    @staticmethod
    def find_spec(name, path=None, target=None):
        if path is None:
            return importlib.machinery.PathFinder.find_spec(name, [{str(root)!r}])
sys.meta_path.insert(0, Finder)
import fedround, validation
from fedround import sandbox
read, names = sandbox.own_python()
print({str(root / 'validation')!r} in read, {str(root / 'fedround')!r} in read, {str(root)!r} in read)"""
    said = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True,
                          env={"PATH": os.defpath})
    assert said.stdout.split() == ["True", "True", "False"]


def test_attack_memory_and_files_have_an_end(tmp_path):
    assert "MemoryError" in tried("bytearray(1 << 30)", tmp_path, memory_mb=256).stderr
    done = tried("import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); open('long', 'wb').write(bytes(3 << 20))",
                 tmp_path, file_mb=1)
    assert "File too large" in done.stderr
    assert (tmp_path / "long").stat().st_size <= 1 << 20


def test_attack_it_ends_with_all_that_it_started(tmp_path):
    """A double fork and a new session would outlive the group; here it stays in it."""
    code = """import os, time
if os.fork() == 0:
    if os.fork() == 0:
        try: os.setsid()
        except OSError: pass
        open('up', 'w').write(str(os.getpid()))
        time.sleep(600)
    os._exit(0)
time.sleep(600)"""
    command = sandbox.command(Sandbox(read=PYTHON, write=(str(tmp_path),)), [sys.executable, "-I", "-c", code])
    child = subprocess.Popen(command, cwd=tmp_path)
    up = tmp_path / "up"
    while not (up.exists() and up.read_text()):
        assert child.poll() is None
        time.sleep(0.02)
    grandchild = psutil.Process(int(up.read_text()))
    os.killpg(child.pid, signal.SIGKILL)
    child.wait()
    psutil.wait_procs([grandchild], timeout=60)
    assert not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE


def test_it_ends_when_its_parent_does(tmp_path):
    command = sandbox.command(Sandbox(read=PYTHON), [sys.executable, "-I", "-c", "print('was here')"])
    said = command[4].replace(f'"parent": {os.getpid()}', '"parent": 1')
    assert subprocess.run([*command[:4], said, *command[5:]], capture_output=True, check=False).stdout == b""


@pytest.mark.parametrize("what", [
    "libc.syscall(CLONE, 0x10000000 | 17, 0, 0, 0, 0)",         # CLONE_NEWUSER
    "libc.syscall(CLONE, 0x40000000 | 17, 0, 0, 0, 0)",         # CLONE_NEWNET
    "libc.prctl(1, 0, 0, 0, 0)",                                # PR_SET_PDEATHSIG: not to end with the parent
    "__import__('fcntl').fcntl(0, 8, os.getppid())",            # F_SETOWN: signals to others
    "__import__('fcntl').fcntl(0, 10, 9)",                      # F_SETSIG: of this kind
    "os.truncate(KEY, 0)",
    "os.sched_setaffinity(os.getppid(), {0})",
    "os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))"])
def test_attack_neighbours_of_what_is_denied_are_denied(tmp_path, what):
    key, inside = tmp_path / "key", tmp_path / "scratch"
    key.write_text("secret")
    inside.mkdir()
    clone = sandbox._CLONE[list(sandbox._MACHINES).index(platform.machine())]
    code = f"""import ctypes, os
KEY, CLONE, libc = {str(key)!r}, {clone}, ctypes.CDLL(None, use_errno=True)
found = {what}
if found == 0 and 'CLONE' in {what!r}: os._exit(0)
if found is not None and found < 0: raise PermissionError(ctypes.get_errno(), "refused")"""
    done = tried(code, inside)
    assert (done.returncode, "PermissionError" in done.stderr) == (1, True), done.stderr
    assert key.read_text() == "secret"


def test_threads_and_children_are_made_as_ever(tmp_path):
    code = """import threading, subprocess, os
thread = threading.Thread(target=lambda: print("thread")); thread.start(); thread.join()
print(subprocess.run(["/bin/echo", "child"], capture_output=True, text=True, check=True).stdout.strip(), flush=True)
if os.fork() == 0:
    print("fork", flush=True); os._exit(0)
os.wait()"""
    assert tried(code, tmp_path).stdout.split() == ["thread", "child", "fork"]


def test_an_older_kernel_sends_no_signals_out_of_it_either(tmp_path):
    """Landlock keeps signals inside from its sixth version on; before it the calls are refused."""
    code = f"""import ctypes, errno, os, sys
sys.path.insert(0, {str(Path(sandbox.__file__).parents[1])!r})
from fedround import sandbox
libc = ctypes.CDLL(None, use_errno=True)
libc.prctl(38, 1, 0, 0, 0)
sandbox._deny_calls(5)
numbers = [both[list(sandbox._MACHINES).index({platform.machine()!r})] for both in sandbox._SIGNALS.values()]
print([number for number in numbers if libc.syscall(number, -1, -1, -1, -1) != -1 or ctypes.get_errno() != errno.EACCES])"""
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
