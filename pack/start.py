"""What the single file does first: unpack itself, once, and go on as if bpipe was installed there.

It becomes the ``__main__`` of an archive. Python could load the rest from that, too, but not what
is compiled, and every start would compile the others anew. So they lie in archives within that one:
``lib``, and for each machine what works only there, which is cryptography. What is unpacked is
named for its digest, and gets that name when all of it is there.

Any Python can read this, to be told that it is too old.
"""

import os
import sys

KEY = "unknown"  # the digest, which the build puts here
MACHINES = "no machine"  # and for whom there is cryptography
OLDEST = (3, 11)


def main():  # type: () -> None
    """Find what was unpacked, or unpack it; then run the command line."""
    if sys.version_info < OLDEST:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit("bpipe: needs Python 3.11 or later, and this is " + found)
    from importlib.machinery import EXTENSION_SUFFIXES

    suffix = EXTENSION_SUFFIXES[0]  # as in .cpython-311-x86_64-linux-gnu.so
    machine = suffix.rpartition(".")[0].split("-", 2)[-1]
    folder = _folder(sys.path[0], machine)
    sys.path[0] = os.path.join(folder, "lib")
    compiled = os.path.join(folder, machine)
    if os.path.exists(os.path.join(compiled, "_cffi_backend" + suffix)):
        sys.path.insert(1, compiled)
    else:
        sys.meta_path.append(_Missing)
    from bpipe.__main__ import main as run

    run()


def _folder(archive, machine):  # type: (str, str) -> str
    """Where it is unpacked, by now. Root does not run what others could have put there."""
    cache = os.environ.get("XDG_CACHE_HOME", "")
    if not os.path.isabs(cache):
        cache = os.path.expanduser("~/.cache")
    parent = os.path.join(cache, "bpipe")
    folder = os.path.join(parent, "-".join((KEY, machine, str(os.geteuid()))))
    try:
        if not os.path.isdir(folder):
            _unpack(archive, machine, folder)
        owner = os.stat(folder).st_uid
    except OSError as error:
        why = "bpipe: cannot unpack itself below {}: {} (XDG_CACHE_HOME names another folder)"
        sys.exit(why.format(cache, error.strerror))
    if owner != os.geteuid():
        sys.exit("bpipe: " + folder + " belongs to somebody else")
    return folder


def _unpack(archive, machine, folder):  # type: (str, str, str) -> None
    """May be done by several processes at once: who comes last has done it for nothing."""
    import shutil
    import tempfile
    import zipfile

    parent = os.path.dirname(folder)
    os.makedirs(parent, exist_ok=True)
    part = tempfile.mkdtemp(dir=parent)
    try:
        with zipfile.ZipFile(archive) as outer:
            for name in {"lib", machine}.intersection(outer.namelist()):
                with outer.open(name) as file, zipfile.ZipFile(file) as inner:
                    inner.extractall(os.path.join(part, name))
        try:
            os.rename(part, folder)
        except OSError:
            if not os.path.isdir(folder):
                raise
    finally:
        shutil.rmtree(part, ignore_errors=True)


class _Missing:
    """Asked after everybody else: tells why there is no cryptography."""

    @staticmethod
    def find_spec(name, path=None, target=None):  # type: (str, object, object) -> None
        if name == "cryptography":
            text = "a secret needs the package cryptography, which this file has for {}; here, {}"
            how = "install it (python3-cryptography), or install bpipe"
            raise ImportError(text.format(MACHINES, how))


if __name__ == "__main__":
    main()
