"""What runs first on the far side, on any Python 3: it says if that is too old, and begins.

This source is executed with the parcel as its globals (see ``bundle``); then ``begin`` is called
with the parcel, or ``hold`` in the holder's process. Types are texts, and texts are put together
as they always could be.
"""

import json
import os
import sys

if False:  # for who reads types
    from importlib.machinery import ModuleSpec
    from types import CodeType
    from typing import Any

OLDEST = (3, 9)


class Memory:
    """Finds and loads modules that are in memory, as sources or as code: no file is touched.

    It is an ``importlib.abc.InspectLoader`` in all but name.
    """

    def __init__(self, modules: "dict[str, Any]") -> None:
        self._modules = modules

    def find_spec(
        self, name: str, path: object = None, target: object = None
    ) -> "ModuleSpec | None":
        """How this module is loaded; None if it is not here."""
        if name not in self._modules:
            return None
        from importlib.machinery import ModuleSpec

        return ModuleSpec(name, self, is_package=self.is_package(name))  # type: ignore[arg-type]

    def create_module(self, spec: object) -> None:
        """As always."""

    def exec_module(self, module: object) -> None:
        """Run it."""
        exec(self.get_code(vars(module)["__name__"]), vars(module))

    def get_code(self, name: str) -> "CodeType":
        """Its compiled code."""
        found: CodeType | str = self._modules[name]
        if isinstance(found, str):
            return compile(found, "<" + name + ">", "exec", dont_inherit=True)
        return found

    def get_source(self, name: str) -> "str | None":
        """Its source, as it was sent; None if only the code is here."""
        found = self._modules[name]
        return found if isinstance(found, str) else None

    def is_package(self, name: str) -> bool:
        """Whether there are modules in it."""
        return any(each.startswith(name + ".") for each in self._modules)


def answer(nonce: str, what: object) -> None:
    """Say this in one line, which nothing that was on the way before can be taken for."""
    data = ("\0bpipe:" + nonce + " " + json.dumps(what) + "\n").encode()
    while data:
        data = data[os.write(1, data) :]


def begin(parcel: "dict[str, Any]") -> None:
    """The whole life of the process that was started there; it does not return."""
    status = 1
    try:
        if sys.version_info < OLDEST:
            found = ".".join(map(str, sys.version_info[:3]))
            raise RuntimeError("its python3 is " + found + ", and bpipe needs 3.9 or later")
        if sys.platform != "linux":
            raise RuntimeError("it runs " + sys.platform + ", and bpipe needs Linux there")
        sys.meta_path.insert(0, Memory(parcel["modules"]))
        from bpipe.remote import relay

        relay.main(parcel, answer)
        status = 0
    except BaseException as error:
        text = str(error) if isinstance(error, (RuntimeError, OSError)) else repr(error)
        answer(parcel["nonce"], {"error": text, "final": not isinstance(error, OSError)})
    finally:
        os._exit(status)  # and no word of the interpreter


def hold(parcel: "dict[str, Any]") -> None:
    """The whole life of the holder's process."""
    sys.meta_path.insert(0, Memory(parcel["modules"]))
    from bpipe.remote import holder

    holder.main(parcel)
