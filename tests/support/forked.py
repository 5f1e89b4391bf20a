"""Python processes for tests, without their imports: forked from a process that has imported Keras.

`Forked` is a `subprocess.Popen` for Python's own command lines: `-m module`, `-c code` or a script. It has
a process id, pipes, signals and an exit code of its own, but it starts in milliseconds: importing TensorFlow
and Keras takes 5 to 13 CPU seconds, which a test run pays once. Use `subprocess` to test an environment
without a module, `python -I`, or the command line as users type it.

    test process ---- arguments, cwd, environ, stdin, stdout, stderr, status ----> forker ---- fork
                 <--- process id -------------------------------------------------           |
                 <--- exit status and CPU seconds, by the pipe `status` --------------- ends-+
"""

import atexit
import contextlib
import fcntl
import gc
import hashlib
import inspect
import json
import os
import pathlib
import runpy
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import traceback
import types

# Frameworks read these when they are imported: processes that differ in them have forkers of their own.
AT_IMPORT = ("KERAS_", "JAX_", "TF_", "PYTHONHASHSEED")
ENDED = struct.Struct("=id")  # exit status, CPU seconds
PIPES = ("p2cread", "p2cwrite", "c2pread", "c2pwrite", "errread", "errwrite")
# JAX compiles for longer than it computes: see the Makefile.
JAX = {
    "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
    "XLA_FLAGS": "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1",
    "JAX_COMPILATION_CACHE_DIR": str(pathlib.Path(__file__).parents[2] / "build" / "jax-cache"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
    "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
}
TESTS = str(pathlib.Path(__file__).parents[1])
spent = 0.0  # CPU seconds of all forks that ended, and of forkers until they had imported Keras
_forkers = {}  # socket by the environment


Popen = subprocess.Popen  # which a test may replace


class Forked(Popen):
    """A process that runs `arguments`: Python's command line without `sys.executable`.

    It begins with the module `preload` and all that this module imports; with "tensorflow", without Keras.
    """

    def __init__(self, arguments, *, preload="keras_initx", **options):
        self._preload = preload
        super().__init__(arguments, **options)

    def _execute_child(self, *given):
        names = inspect.signature(Popen._execute_child).bind(self, *given).arguments
        pipes = [names[name] for name in PIPES]
        given = [fd if fd >= 0 else number for number, fd in enumerate((pipes[0], pipes[3], pipes[5]))]
        environ = dict(os.environ if names["env"] is None else names["env"])
        environ["INITX_TEST_RUN"] = _test_run()  # for forks that fork
        asked = {
            "arguments": [os.fspath(one) for one in names["args"]],
            "cwd": os.fspath(names["cwd"] or pathlib.Path.cwd()),
            "environ": environ,
        }
        forker = _forker_of(environ, self._preload)
        self._status, status = os.pipe()
        message = json.dumps(asked).encode()
        socket.send_fds(forker, [len(message).to_bytes(4, "big")], [*given, status])
        forker.sendall(message)
        os.close(status)
        self.pid = int.from_bytes(_read(forker, 4), "big")
        self._child_created = True
        self._close_pipe_fds(*pipes)

    def _try_wait(self, wait_flags):
        """As `os.waitpid`, for the child of another process."""
        global spent
        if wait_flags & os.WNOHANG and not select.select([self._status], [], [], 0)[0]:
            return 0, 0
        told = os.read(self._status, ENDED.size)
        os.close(self._status)
        # A forker that was killed tells nothing.
        status, seconds = ENDED.unpack(told) if len(told) == ENDED.size else (signal.SIGKILL, 0.0)
        spent += seconds
        return self.pid, status

    def _internal_poll(self, _deadstate=None, **others):
        if self.returncode is None and self._waitpid_lock.acquire(False):
            try:
                pid, status = self._try_wait(os.WNOHANG) if self.returncode is None else (0, 0)
                if pid:
                    self._handle_exitstatus(status)
            finally:
                self._waitpid_lock.release()
        return self.returncode


class ForExports(Forked):
    """In place of the `subprocess.Popen` of `keras_initx.saved_model._process`: `python -P script`."""

    def __init__(self, command, **options):
        super().__init__(command[2:], preload="tensorflow", **options)


def run(arguments, *, input=None, timeout=None, check=False, **options):  # noqa: A002
    """As `subprocess.run` with `capture_output` and `text`; with `check`, a failure shows its stderr."""
    pipes = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with Forked(arguments, **pipes | {"text": True} | options) as process:
        try:
            out, err = process.communicate(input or "", timeout)
        except BaseException:
            process.kill()
            raise
    assert not check or process.returncode == 0, err
    return subprocess.CompletedProcess(arguments, process.returncode, out, err)


def backend(name, **environ):
    """The environment of a process with another backend: where it is the same, it has the same forker.

    Flags of XLA are added to those that save JAX time.
    """
    own = JAX if name == "jax" else {}
    flags = " ".join(filter(None, (one.get("XLA_FLAGS") for one in (own, environ))))
    return os.environ | {"KERAS_BACKEND": name} | own | environ | ({"XLA_FLAGS": flags} if flags else {})


def _forker_of(environ, preload):
    """A connection to the forker of this environment, which all workers of a test run share."""
    read = {name: value for name, value in environ.items() if name.startswith(AT_IMPORT)}
    key = preload, *sorted(({"KERAS_BACKEND": "tensorflow"} | read).items())
    if key not in _forkers:
        name = hashlib.sha256(repr((_test_run(), key)).encode()).hexdigest()[:16]
        path = pathlib.Path(tempfile.gettempdir(), f"initx-forker-{name}")
        with path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # until the file is closed
            _forkers[key] = _connected(path, environ, preload)
    return _forkers[key]


def _test_run():
    own = os.environ.get("PYTEST_XDIST_TESTRUNUID", str(os.getpid()))
    return os.environ.get("INITX_TEST_RUN", own)


def _connected(path, environ, preload):
    global spent
    connection = socket.socket(socket.AF_UNIX)
    atexit.register(connection.close)
    try:
        connection.connect(str(path))
    except OSError:
        with socket.socket(socket.AF_UNIX) as listener:
            path.unlink(missing_ok=True)
            listener.bind(str(path))
            listener.listen()
            command = [sys.executable, __file__, str(listener.fileno()), str(path), preload]
            null = subprocess.DEVNULL
            Popen(command, pass_fds=[listener.fileno()], env=environ, stdin=null, stdout=null)
        connection.connect(str(path))
        connection.sendall(b"?")
        (seconds,) = struct.unpack("=d", _read(connection, 8))
        spent += seconds
    else:
        connection.sendall(b"!")
    return connection


def _read(connection, size):
    data = b""
    while len(data) < size:
        if not (part := connection.recv(size - len(data))):
            raise EOFError("the process at the other end has closed its connection")
        data += part
    return data


class Forker:
    """Forks a process for each request. It ends when the last test process has closed its connection."""

    def __init__(self, listener):
        self.listener, self.connections, self.statuses = listener, [], {}
        self.ended, self.wake = os.pipe()
        os.set_blocking(self.wake, False)
        signal.set_wakeup_fd(self.wake)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def serve(self):
        """Returns in each of the forks, with the request; in the forker None."""
        while True:
            ready, _, _ = select.select([self.listener, self.ended, *self.connections], [], [])
            if self.ended in ready:
                os.read(self.ended, 1024)
                self.tell()
            if self.listener in ready:
                self.accept()
            for connection in set(self.connections).intersection(ready):
                size, fds, _, _ = socket.recv_fds(connection, 4, 4)
                if size:
                    asked = json.loads(_read(connection, int.from_bytes(size, "big")))
                    if self.fork(connection, fds):
                        return asked
                    continue
                connection.close()
                self.connections.remove(connection)
                if not self.connections:
                    return None

    def accept(self):
        connection, _ = self.listener.accept()
        if _read(connection, 1) == b"?":
            connection.sendall(struct.pack("=d", sum(os.times()[:2])))
        self.connections.append(connection)

    def fork(self, connection, fds):
        """Whether this is the fork."""
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for number, fd in enumerate(fds[:3]):
                os.dup2(fd, number)
            for open_socket in (self.listener, *self.connections):
                open_socket.close()
            for fd in (self.ended, self.wake, *fds, *self.statuses.values()):
                os.close(fd)
            return True
        self.statuses[pid] = fds.pop()
        for fd in fds:
            os.close(fd)
        connection.sendall(pid.to_bytes(4, "big"))
        return False

    def tell(self):
        """Writes the end of each process that has ended to its pipe."""
        while self.statuses:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if not pid:
                return
            pipe = self.statuses.pop(pid)
            with contextlib.suppress(BrokenPipeError):  # the test does not wait for it
                os.write(pipe, ENDED.pack(status, usage.ru_utime + usage.ru_stime))
            os.close(pipe)


def become(asked):
    """Runs the command line in this process."""
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["environ"])
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    sys.path += [path for path in (*given, TESTS) if path not in sys.path]
    first, *rest = asked["arguments"]
    sys.argv = [first, *rest[1:]] if first == "-c" else rest if first == "-m" else [first, *rest]
    # In place of this file's folder.
    sys.path[0] = {"-c": "", "-m": asked["cwd"]}.get(first, str(pathlib.Path(first).parent))
    if first == "-c":
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        exec(compile(rest[0], "<string>", "exec"), main.__dict__)
    elif first == "-m":
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        runpy.run_path(first, run_name="__main__")


def end(code):
    """Ends as the interpreter does, but without taking a second to free its modules."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def main(listener, path, preload):
    """Imports a module, serves, and in each fork runs the command line of a test."""
    if preload == "tensorflow":
        sys.modules["keras"] = None  # which TensorFlow imports where it is
    __import__(preload)
    gc.freeze()  # else the garbage collector of each fork copies the memory of all modules
    asked = Forker(listener).serve()
    if asked is None:
        path.unlink(missing_ok=True)
        path.with_suffix(".lock").unlink(missing_ok=True)
        return
    try:
        become(asked)
    except SystemExit as stop:
        if isinstance(stop.code, str):
            sys.stderr.write(stop.code + "\n")
        end(stop.code if isinstance(stop.code, int) else int(stop.code is not None))
    except KeyboardInterrupt:
        raise
    except BaseException:
        traceback.print_exc()
        end(1)
    end(0)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])), pathlib.Path(sys.argv[2]), sys.argv[3])
