"""A child process without network that sees what it is given: Landlock for files, seccomp for calls, limits for the rest.

::

    child = subprocess.Popen(sandbox.command(Sandbox(read=(folder,), write=(scratch,), memory_mb=2048, seconds=600), argv), …)

This file is also the script that enters the sandbox: it confines itself, and then becomes the wanted program. So it imports
nothing but Python's standard library, and any Python may run it.

Promised on Linux, for the program and all that it starts, whatever it is (line by line below):

* it opens no socket, so it reaches no network, no database and no daemon of this machine (`_DENIED`);
* it reads no file but what `read` and `write` name and `_SYSTEM`, and writes none but below `write` (`_restrict_files`);
* it changes no file's rights, owner or times (`_IDLE`);
* it reads no other process's memory, environment or files, sends it no signals and sets it no limits (`_DENIED`,
  `_SCOPE_SIGNAL`, `_OF_ITSELF`; Landlock's own rule for processes outside);
* it has no privilege, also if root started it, and gets none in a namespace of its own (`_drop_privileges`, `_CLONE`);
* it cannot leave its session, so that whoever ends the session's process group ends all of them (`_DENIED`); the program
  itself ends when its parent does, and cannot take that back (`_enter`, `_NOT_SO`);
* no process of it has more memory, processor time or longer files than allowed (`_limit`), and where the system has no memory
  left, it ends one of them before it ends this process (`_first_to_go`);
* a process that has called `stay_alone` starts no other and becomes no other program.

Not promised: that it learns of no file that it is there, and how long (Landlock keeps contents, not names); that it sees no
other process's command line; that it does not fill the processors, the disk below `write` or the table of processes until it
is ended; that what it has started ends with a parent that is killed; that nobody learns anything from how long it takes. The
kernel's own faults are not covered.
"""

from __future__ import annotations

import ctypes
import errno
import json
import os
import platform
import resource
import struct
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

_MIB = 1 << 20


@dataclass(frozen=True)
class Sandbox:
    """What a program may have."""

    read: tuple[str, ...] = ()
    """Files, and folders with all below them, that it may read and run."""
    write: tuple[str, ...] = ()
    """Folders in which it may do anything with files."""
    names: tuple[str, ...] = ()
    """Folders of which, and below which, it may list the names."""
    memory_mb: int | None = None
    """Of each process: memory that it asks the system for and may write to. None: as much as this process may."""
    seconds: int = 3600
    """Of processor time of each process."""
    nice: int = 19
    """By how much its priority is below this process's."""
    file_mb: int = 1024
    """The longest file that it may write."""


def lacking() -> str | None:
    """What this system lacks for a sandbox, in words; None: nothing."""
    if sys.platform != "linux" or platform.machine() not in _MACHINES:
        return "a sandbox needs Linux on x86_64 or aarch64"
    if _landlock_version() < 1:
        return ("the kernel does not offer Landlock, which keeps files from a program: it needs Linux 5.13 or newer, with "
                "'landlock' among the modules in /sys/kernel/security/lsm")
    return None


def command(allowed: Sandbox, argv: list[str], python: str = sys.executable) -> list[str]:
    """What starts `argv` in a sandbox, in a session of its own: end it with `os.killpg` of the process id.

    argv: begins with the path of a program, which is readable, as are the libraries that it needs below /usr or `read`.
    """
    said = json.dumps({**asdict(allowed), "parent": os.getpid()})
    return [python, "-I", "-S", str(Path(__file__).resolve()), said, *argv]


def own_python() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What this interpreter and all that it may import need to `read`, and of which folders it needs the `names`.

    From a folder of modules outside of the interpreter's own (a checkout) it is the modules and packages, and nothing else
    that may lie beside them; a folder of installed libraries is read whole, since they have files beside their packages. What
    this process has imported from elsewhere (an editable install) is read, too.
    """
    homes, names, read = (Path(sys.prefix), Path(sys.base_prefix)), set[str](), {sys.prefix, sys.base_prefix}
    for folder in map(Path, filter(None, sys.path)):
        if folder.name in _OF_LIBRARIES:
            read.add(str(folder))
        elif folder.is_dir() and not any(folder.is_relative_to(home) for home in homes):
            names.add(str(folder))
            read |= {str(one) for one in folder.iterdir() if one.suffix == ".py" or (one / "__init__.py").is_file()}
    for name, module in list(sys.modules.items()):
        if "." not in name and (file := getattr(module, "__file__", None)):
            place = Path(file).parent if getattr(module, "__path__", None) else Path(file)
            if not any(place.is_relative_to(one) for one in (*map(str, homes), *read)):
                read.add(str(place))
    return tuple(sorted(read)), tuple(sorted(names))


_OF_LIBRARIES = ("site-packages", "dist-packages")

# -- inside ------------------------------------------------------------------------------------------------------------

_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/etc/ld.so.cache", "/etc/localtime", "/etc/mime.types", "/dev/urandom",
           "/dev/random", "/dev/zero", "/proc", "/sys/devices/system/cpu", "/sys/devices/system/node", "/sys/fs/cgroup")
"""What every program may read: the system's programs and libraries, and what they ask of the machine. No key lies there.
Below /proc the kernel keeps from it what only a privileged process may read, and memory, environment and open files of
processes outside of the sandbox.
"""

_FREE = ("/dev/null",)
"""What everybody may write to."""

_MACHINES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
_DENIED = {
    "socket": (41, 198), "connect": (42, 203), "bind": (49, 200), "listen": (50, 201), "accept": (43, 202),
    "accept4": (288, 242), "io_uring_setup": (425, 425),                                       # the network
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pidfd_getfd": (438, 438),
    "perf_event_open": (298, 241), "pidfd_send_signal": (424, 424),                             # other processes
    "setsid": (112, 157), "setpgid": (109, 154),                                               # the session
    "mount": (165, 40), "unshare": (272, 97), "setns": (308, 268), "open_by_handle_at": (304, 265), "chroot": (161, 51),
    "pivot_root": (155, 41), "move_mount": (429, 429), "open_tree": (428, 428), "fsopen": (430, 430),   # what files are
    "keyctl": (250, 219), "add_key": (248, 217), "request_key": (249, 218),                     # the kernel's key rings
    "shmget": (29, 194), "shmat": (30, 196), "semget": (64, 190), "msgget": (68, 186), "mq_open": (240, 180),
    "ioprio_set": (251, 30), "sched_setscheduler": (144, 119), "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),                                                                # what processes share
    "truncate": (76, 45),                                   # which Landlock knows from its third version on
    "bpf": (321, 280), "userfaultfd": (323, 282), "init_module": (175, 105), "finit_module": (313, 273),
    "kexec_load": (246, 104), "kexec_file_load": (320, 294)}
"""Calls that fail as if they were not permitted, with their numbers on either machine."""
_SIGNALS = {"kill": (62, 129), "tkill": (200, 130), "tgkill": (234, 131), "rt_sigqueueinfo": (129, 138),
            "rt_tgsigqueueinfo": (297, 240)}
"""Denied, too, where the kernel cannot keep signals inside (Landlock before its sixth version)."""
_UNKNOWN = {"clone3": (435, 435)}
"""Calls that this kernel is said not to have: what they ask for lies where a filter does not look. Libraries take `clone`."""
_IDLE = {
    "chmod": (90, None), "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452),
    "chown": (92, None), "lchown": (94, None), "fchown": (93, 55), "fchownat": (260, 54),
    "utime": (132, None), "utimes": (235, None), "futimesat": (261, None), "utimensat": (280, 88),
    "setxattr": (188, 5), "lsetxattr": (189, 6), "fsetxattr": (190, 7), "setxattrat": (463, 463),
    "removexattr": (197, 14), "lremovexattr": (198, 15), "fremovexattr": (199, 16), "removexattrat": (466, 466)}
"""Calls that say they are done and do nothing: Landlock lets whoever owns a file change its rights, owner, times and notes,
and programs that copy files do that as a matter of course.
"""
_OF_ITSELF = {"prlimit64": ((302, 261), (0,)), "setpriority": ((141, 140), (0, 1)), "sched_setaffinity": ((203, 122), (0,))}
"""Calls that a process may make about itself, and about no other: these of their arguments must be 0."""
_NOT_SO = {"prctl": ((157, 167), 0, (1,)), "fcntl": ((72, 25), 1, (8, 10, 15))}
"""Calls that are denied with one of these values of one argument: not to be told of the parent's end any more, and to have
signals sent to others when a file is ready.
"""
_CLONE, _NEW_NAMESPACES = (56, 220), 0x7E020000
"""A child in a namespace of its own would be privileged there: it is not made."""
_THREAD = 0x10000
_SECCOMP, _ALL_THREADS = (317, 277), 1
_STARTS = {"fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281)}
"""What makes another process, or another program of this one; and `clone` without `_THREAD`."""

_SCOPE_SIGNAL, _SCOPE_ABSTRACT_SOCKET = 2, 1
_ADD_RULE, _CREATE_RULESET, _RESTRICT_SELF = 445, 444, 446
_READ_FILE, _READ_FOLDER, _EXECUTE = 1 << 2, 1 << 3, 1 << 0
_ON_FILES = (1 << 0) | (1 << 1) | (1 << 2) | (1 << 14) | (1 << 15)
"""Rights that a single file can have: execute, write, read, truncate, control of a device."""
_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
"""All rights over files that a version of Landlock knows; from 5 on, `_ALL_RIGHTS`."""
_ALL_RIGHTS = (1 << 16) - 1


def _landlock_version() -> int:
    if sys.platform != "linux":
        return 0
    return int(ctypes.CDLL(None).syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), 1))


def _restrict_files(allowed: Sandbox) -> int:
    """Keep all other files from this process and its children; returns Landlock's version."""
    libc, version = ctypes.CDLL(None, use_errno=True), _landlock_version()
    rights = _RIGHTS.get(version, _ALL_RIGHTS)
    scoped = _SCOPE_ABSTRACT_SOCKET | _SCOPE_SIGNAL if version >= 6 else 0
    attributes = struct.pack("<QQQ", rights, 0, scoped)[:24 if version >= 6 else 16 if version >= 4 else 8]
    rules = libc.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0)
    _check(rules, "landlock_create_ruleset")
    look = _READ_FILE | _READ_FOLDER | _EXECUTE
    for path, wanted in (*((one, look) for one in (*_SYSTEM, *allowed.read)), *((one, rights) for one in allowed.write),
                         *((one, _READ_FOLDER) for one in allowed.names), *((one, _READ_FILE | 1 << 1) for one in _FREE)):
        try:
            held = os.open(path, os.O_PATH | os.O_CLOEXEC)
        except FileNotFoundError:       # this system has no such file, so nothing is to be allowed
            continue
        is_folder = os.path.isdir(path)
        rule = struct.pack("<Qi", wanted & rights & (rights if is_folder else _ON_FILES), held)
        _check(libc.syscall(_ADD_RULE, rules, 1, rule, 0), f"landlock_add_rule for {path}")
        os.close(held)
    _check(libc.prctl(38, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    _check(libc.syscall(_RESTRICT_SELF, rules, 0), "landlock_restrict_self")
    os.close(rules)
    return version


class _Filter:
    """A filter for this process and its children, for one call after the other. Calls by another numbering of this machine
    end the process.
    """

    LOAD, EQUAL, AT_LEAST, ANY_OF, END = 0x20, 0x15, 0x35, 0x45, 0x06       # the filter's language (BPF)
    REFUSE, ALLOW = (END, 0, 0, 0x00050000 | errno.EACCES), (END, 0, 0, 0x7FFF0000)
    NOTHING, UNKNOWN = (END, 0, 0, 0x00050000), (END, 0, 0, 0x00050000 | errno.ENOSYS)

    def __init__(self) -> None:
        machine, kill = platform.machine(), (self.END, 0, 0, 0x80000000)
        self._column = list(_MACHINES).index(machine)
        self._steps = [(self.LOAD, 0, 0, 4), (self.EQUAL, 1, 0, _MACHINES[machine]), kill, (self.LOAD, 0, 0, 0)]
        if machine == "x86_64":             # the same calls have second numbers there, from here on
            self._steps += [(self.AT_LEAST, 0, 1, 0x40000000), kill]

    def argument(self, place: int) -> tuple[int, int, int, int]:
        """Look at this argument."""
        return self.LOAD, 0, 0, 16 + 8 * place

    def on(self, both: tuple[int, int | None], *then: tuple[int, int, int, int]) -> None:
        """Do this, which ends with a verdict, if it is that call."""
        if (number := both[self._column]) is not None:
            self._steps.extend([(self.EQUAL, 0, len(then), number), *then])

    def install(self) -> None:
        """From now on, for ever, in all threads."""
        steps = [*self._steps, self.ALLOW]
        code = ctypes.create_string_buffer(b"".join(struct.pack("<HBBI", *step) for step in steps))
        program = ctypes.create_string_buffer(struct.pack("@HP", len(steps), ctypes.addressof(code)))
        _check(ctypes.CDLL(None, use_errno=True).syscall(_SECCOMP[self._column], 1, _ALL_THREADS, program), "seccomp")


def _deny_calls(landlock: int) -> None:
    calls = _Filter()
    for both in (*_DENIED.values(), *(_SIGNALS.values() if landlock < 6 else ())):
        calls.on(both, calls.REFUSE)
    for both in _IDLE.values():
        calls.on(both, calls.NOTHING)
    for both in _UNKNOWN.values():
        calls.on(both, calls.UNKNOWN)
    for both, zeros in _OF_ITSELF.values():
        looks = [step for left, place in zip(range(len(zeros) - 1, -1, -1), zeros, strict=True)
                 for step in (calls.argument(place), (calls.EQUAL, 0, 2 * left + 1, 0))]
        calls.on(both, *looks, calls.ALLOW, calls.REFUSE)
    for both, place, values in _NOT_SO.values():
        looks = [(calls.EQUAL, left + 1, 0, value)
                 for left, value in zip(range(len(values) - 1, -1, -1), values, strict=True)]
        calls.on(both, calls.argument(place), *looks, calls.ALLOW, calls.REFUSE)
    calls.on(_CLONE, calls.argument(0), (calls.ANY_OF, 1, 0, _NEW_NAMESPACES), calls.ALLOW, calls.REFUSE)
    calls.install()


def stay_alone() -> None:
    """From now on this process, which is in a sandbox, starts no other and becomes no other program. It may have threads.

    A system without a sandbox has none of that.
    """
    if lacking() is not None:
        return
    _check(ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0), "prctl(PR_SET_NO_NEW_PRIVS)")
    calls = _Filter()
    for both in _STARTS.values():
        calls.on(both, calls.REFUSE)
    calls.on(_CLONE, calls.argument(0), (calls.ANY_OF, 1, 0, _THREAD), calls.REFUSE, calls.ALLOW)
    calls.install()


def _limit(allowed: Sandbox) -> None:
    os.nice(allowed.nice)
    _at_most(resource.RLIMIT_CPU, allowed.seconds)
    _at_most(resource.RLIMIT_FSIZE, allowed.file_mb * _MIB)
    _at_most(resource.RLIMIT_CORE, 0)
    if allowed.memory_mb is not None:
        _at_most(resource.RLIMIT_DATA, allowed.memory_mb * _MIB)
    _first_to_go()


def _first_to_go() -> None:
    """If the system has no memory left. It can be raised by anybody, and lowered in the sandbox by nobody."""
    try:
        Path("/proc/self/oom_score_adj").write_text("1000")
    except OSError:             # a system that does not have it
        return


def _drop_privileges() -> None:
    """Of root: whoever is none has nothing to drop. The program that is executed after that has none."""
    for privilege in range(64):
        ctypes.CDLL(None).prctl(24, privilege, 0, 0, 0)         # PR_CAPBSET_DROP


def _at_most(which: int, value: int) -> None:
    _, hard = resource.getrlimit(which)
    value = value if hard == resource.RLIM_INFINITY else min(value, hard)
    resource.setrlimit(which, (value, value))


def _check(found: int, call: str) -> None:
    if found < 0:
        raise OSError(ctypes.get_errno(), f"{call} failed")


def _enter(allowed: Sandbox, parent: int, argv: list[str]) -> None:
    if os.getsid(0) != os.getpid():
        os.setsid()
    _check(ctypes.CDLL(None, use_errno=True).prctl(1, 9, 0, 0, 0), "prctl(PR_SET_PDEATHSIG)")
    if os.getppid() != parent:
        os._exit(1)
    _limit(allowed)
    _drop_privileges()
    _deny_calls(_restrict_files(allowed))
    os.execv(argv[0], argv)  # noqa: S606 - the program that was asked for, confined


if __name__ == "__main__":
    _said = json.loads(sys.argv[1])
    _parent = _said.pop("parent")
    _enter(Sandbox(**_said), _parent, sys.argv[2:])
