"""The layers: imports point downwards only, and each layer keeps to its own libraries.

    cli > serve > nodes > fuse > core > wire            and beside them: daemon_client > wire

In daemon_client, too, each layer imports those below it only: see DAEMON_LAYERS.

The rules are checked on the syntax tree of every module, wherever in it an import is.
"""

import ast
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("ecryptfs_cuse", "daemon_client")
LAYERS = ("wire", "core", "fuse", "nodes", "serve", "cli")  # the lowest first
DAEMON_LAYERS = (  # the lowest first
    *("secret", "key", "modules", "protocol"),
    *("process", "notify", "threads", "device", "stores", "daemon"),
    *("sources", "service", "cli"),
)
LONGEST_MODULE = 450

PYFUSE3_PLACES = ("ecryptfs_cuse.fuse.operations", "ecryptfs_cuse.fuse.session")
CLOCKS_AND_LOOPS = ("trio", "pyfuse3", "time", "datetime", "asyncio", "threading")
INPUT_AND_OUTPUT = ("os", "io", "socket", "select", "subprocess", "pathlib", "ctypes", "logging")


def is_in(name: str, *packages: str) -> bool:
    """Whether a dotted name is one of the packages, or in one."""
    return any(name == package or name.startswith(package + ".") for package in packages)


def layer_of(name: str) -> str | None:
    """The layer that a name belongs to, None where it is a package itself, or not ours."""
    parts = name.split(".")
    return parts[1] if is_in(name, *PACKAGES) and len(parts) > 1 else None


def points_downwards(layers: tuple[str, ...], package: str, module: str, imported: str) -> bool:
    """Whether a module of a package may import a name of that package, by their layers."""
    importer, target = layer_of(module), layer_of(imported)
    if not is_in(imported, package) or target is None or target == "__version__":
        return True
    if importer is None or importer not in layers or target not in layers:
        return importer == target
    return layers.index(target) <= layers.index(importer)


@dataclass(frozen=True)
class Rule:
    """A rule about the imports of the modules that it concerns."""

    text: str
    concerns: Callable[[str], bool]
    allows: Callable[[str, str], bool]


RULES = (
    Rule(
        "imports point downwards only: cli > serve > nodes > fuse > core > wire",
        lambda module: is_in(module, "ecryptfs_cuse"),
        partial(points_downwards, LAYERS, "ecryptfs_cuse"),
    ),
    Rule(
        f"imports point downwards only: {' > '.join(reversed(DAEMON_LAYERS))}",
        lambda module: is_in(module, "daemon_client") and module != "daemon_client",
        partial(points_downwards, DAEMON_LAYERS, "daemon_client"),
    ),
    Rule(
        "the daemon's protocol has no input and output, no clock, no tasks",
        lambda module: module == "daemon_client.protocol",
        lambda module, imported: not is_in(imported, *CLOCKS_AND_LOOPS, *INPUT_AND_OUTPUT),
    ),
    Rule(
        "key modules know the interface and each other, not the daemon: so may others' be",
        lambda module: is_in(module, "daemon_client.modules"),
        lambda module, imported: (
            not is_in(imported, "daemon_client", "ecryptfs_cuse")
            or is_in(imported, "daemon_client.key", "daemon_client.secret", "daemon_client.modules")
        ),
    ),
    Rule(
        "the package itself imports nothing, so that a key daemon gets wire/ alone",
        lambda module: module == "ecryptfs_cuse",
        lambda module, imported: False,
    ),
    Rule(
        "fuse/ knows nothing of eCryptfs: no core, nodes, wire",
        lambda module: is_in(module, "ecryptfs_cuse.fuse"),
        lambda module, imported: (
            not is_in(imported, "ecryptfs_cuse.core", "ecryptfs_cuse.nodes", "ecryptfs_cuse.wire")
        ),
    ),
    Rule(
        "core/ and wire/ have no clock, no tasks, no FUSE",
        lambda module: is_in(module, "ecryptfs_cuse.core", "ecryptfs_cuse.wire"),
        lambda module, imported: not is_in(imported, *CLOCKS_AND_LOOPS),
    ),
    Rule(
        "only fuse/operations.py and fuse/session.py import pyfuse3",
        lambda module: module not in PYFUSE3_PLACES,
        lambda module, imported: not is_in(imported, "pyfuse3"),
    ),
    Rule(
        "only wire/ imports construct: the others see frozen dataclasses",
        lambda module: is_in(module, "ecryptfs_cuse") and not is_in(module, "ecryptfs_cuse.wire"),
        lambda module, imported: not is_in(imported, "construct"),
    ),
    Rule(
        "ecryptfs_cuse does not import daemon_client",
        lambda module: is_in(module, "ecryptfs_cuse"),
        lambda module, imported: not is_in(imported, "daemon_client"),
    ),
    Rule(
        "of ecryptfs_cuse, daemon_client imports wire/ only",
        lambda module: is_in(module, "daemon_client"),
        lambda module, imported: (
            not is_in(imported, "ecryptfs_cuse")
            or is_in(imported, "ecryptfs_cuse.wire", "ecryptfs_cuse.__version__")
        ),
    ),
)


def imports(module: str, is_package: bool, tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Every name that a module imports, dotted and absolute, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                yield from ((node.lineno, alias.name) for alias in node.names)
            case ast.ImportFrom():
                package = module.split(".")
                if node.level:
                    package = package[: len(package) - node.level + is_package]
                    source = ".".join([*package, node.module] if node.module else package)
                else:
                    source = node.module or ""
                yield from ((node.lineno, f"{source}.{alias.name}") for alias in node.names)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module")
                | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def violations(file: str, source: str) -> list[str]:
    """What is wrong with a module, ``file`` being its path below the repository's root."""
    path = Path(file)
    is_package = path.stem == "__init__"
    module = ".".join(path.parent.parts if is_package else path.with_suffix("").parts)
    found = [
        f"{file}:{line}: imports {imported}, but {rule.text}"
        for line, imported in imports(module, is_package, ast.parse(source))
        for rule in RULES
        if rule.concerns(module) and not rule.allows(module, imported)
    ]
    layer = layer_of(module)
    layers = LAYERS if is_in(module, "ecryptfs_cuse") else DAEMON_LAYERS
    if layer is not None and layer not in (*layers, "__main__"):
        found.append(f"{file}:1: {layer} is none of the layers {', '.join(layers)}")
    lines = len(source.splitlines())
    if lines > LONGEST_MODULE:
        found.append(f"{file}:{lines}: no module is longer than {LONGEST_MODULE} lines")
    return found


def test_every_module_keeps_to_its_layer() -> None:
    files = [file for package in PACKAGES for file in sorted((ROOT / package).rglob("*.py"))]
    assert len(files) > 20, "the modules were not found"
    found = [
        violation
        for file in files
        for violation in violations(str(file.relative_to(ROOT)), file.read_text())
    ]
    assert not found, "\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("file", "source", "rule"),
    [
        ("ecryptfs_cuse/wire/tags.py", "from ecryptfs_cuse.core import errors", "downwards"),
        ("ecryptfs_cuse/core/miscdev.py", "import ecryptfs_cuse.nodes.text", "downwards"),
        ("ecryptfs_cuse/core/miscdev.py", "from ecryptfs_cuse import nodes", "downwards"),
        ("ecryptfs_cuse/core/miscdev.py", "from ..fuse.node import Handle", "downwards"),
        ("ecryptfs_cuse/core/__init__.py", "from ..fuse.node import Handle", "downwards"),
        ("ecryptfs_cuse/core/__init__.py", "from .. import nodes", "downwards"),
        ("ecryptfs_cuse/nodes/tree.py", "from ecryptfs_cuse.serve import serve", "downwards"),
        ("ecryptfs_cuse/nodes/tree.py", "from ecryptfs_cuse.cli.main import main", "downwards"),
        ("ecryptfs_cuse/serve.py", "from ecryptfs_cuse.cli import main", "downwards"),
        ("ecryptfs_cuse/fuse/mount.py", "def f():\n  import ecryptfs_cuse.serve", "downwards"),
        (
            "ecryptfs_cuse/core/miscdev.py",
            "if TYPE_CHECKING:\n  from ecryptfs_cuse.nodes.text import TextFile",
            "downwards",
        ),
        (
            "ecryptfs_cuse/core/miscdev.py",
            "importlib.import_module('ecryptfs_cuse.nodes.text')",
            "downwards",
        ),
        ("ecryptfs_cuse/core/miscdev.py", "from ecryptfs_cuse import tools", "downwards"),
        ("ecryptfs_cuse/__init__.py", "import os", "the package itself"),
        ("ecryptfs_cuse/__init__.py", "from ecryptfs_cuse.wire import tags", "the package itself"),
        ("ecryptfs_cuse/fuse/channel.py", "from ecryptfs_cuse.core import errors", "knows nothing"),
        ("ecryptfs_cuse/fuse/channel.py", "from ecryptfs_cuse.wire import tags", "knows nothing"),
        ("ecryptfs_cuse/fuse/node.py", "import ecryptfs_cuse.core.errors", "knows nothing"),
        ("ecryptfs_cuse/core/messaging.py", "import trio", "no clock"),
        ("ecryptfs_cuse/core/messaging.py", "from trio.lowlevel import checkpoint", "no clock"),
        ("ecryptfs_cuse/core/messaging.py", "import pyfuse3", "no clock"),
        ("ecryptfs_cuse/core/messaging.py", "import time", "no clock"),
        ("ecryptfs_cuse/core/messaging.py", "from datetime import datetime", "no clock"),
        ("ecryptfs_cuse/core/messaging.py", "import os, time", "no clock"),
        ("ecryptfs_cuse/wire/packet.py", "import time", "no clock"),
        ("ecryptfs_cuse/fuse/channel.py", "import pyfuse3", "import pyfuse3"),
        ("ecryptfs_cuse/fuse/node.py", "from pyfuse3 import FUSEError", "import pyfuse3"),
        ("ecryptfs_cuse/nodes/device.py", "import pyfuse3.asyncio", "import pyfuse3"),
        ("daemon_client/cli.py", "import pyfuse3", "import pyfuse3"),
        ("ecryptfs_cuse/core/keystore.py", "from construct import Struct", "imports construct"),
        ("ecryptfs_cuse/cli/main.py", "from daemon_client import cli", "import daemon_client"),
        ("daemon_client/daemon.py", "from ecryptfs_cuse.core import errors", "wire/ only"),
        ("daemon_client/daemon.py", "from ecryptfs_cuse import serve", "wire/ only"),
        ("daemon_client/daemon.py", "import ecryptfs_cuse", "wire/ only"),
        ("daemon_client/daemon.py", "from daemon_client.sources.keys import Keys", "downwards"),
        ("daemon_client/key.py", "from daemon_client.modules.openssl import OpenSsl", "downwards"),
        ("daemon_client/sources/keys.py", "from daemon_client import service", "downwards"),
        ("daemon_client/protocol.py", "import trio", "no input and output"),
        ("daemon_client/protocol.py", "import os", "no input and output"),
        ("daemon_client/modules/tpm2.py", "from daemon_client import protocol", "key modules"),
        ("daemon_client/modules/tpm2.py", "from ecryptfs_cuse.wire import tags", "key modules"),
        ("daemon_client/misc.py", "", "none of the layers"),
        ("ecryptfs_cuse/misc/helpers.py", "", "none of the layers"),
        ("ecryptfs_cuse/nodes/tree.py", "\n" * 451, "longer than 450"),
    ],
)
def test_a_module_that_breaks_a_rule_is_named_with_its_line_and_the_rule(
    file: str, source: str, rule: str
) -> None:
    found = violations(file, source)
    assert [violation for violation in found if rule in violation], found
    line = source.count("\n") + 1 if "import" in source else None
    assert all(violation.startswith(f"{file}:{line or ''}") for violation in found)


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("ecryptfs_cuse/wire/tags.py", "from construct import Struct"),
        ("ecryptfs_cuse/core/miscdev.py", "import select\nfrom ecryptfs_cuse.wire import tags"),
        ("ecryptfs_cuse/core/miscdev.py", "from .messaging import Daemon"),
        ("ecryptfs_cuse/core/miscdev.py", "from ..wire.packet import Packet"),
        ("ecryptfs_cuse/fuse/session.py", "import pyfuse3, trio"),
        ("ecryptfs_cuse/fuse/channel.py", "import trio\nfrom ecryptfs_cuse.fuse import abi"),
        ("ecryptfs_cuse/nodes/tree.py", "from ecryptfs_cuse.fuse.node import Node"),
        ("ecryptfs_cuse/serve.py", "from ecryptfs_cuse.nodes.tree import device_tree"),
        ("ecryptfs_cuse/cli/main.py", "from ecryptfs_cuse import __version__, serve"),
        ("daemon_client/cli.py", "from ecryptfs_cuse import __version__"),
        ("daemon_client/cli.py", "import time\nfrom ecryptfs_cuse.wire import tags"),
        ("daemon_client/sources/config.py", "from daemon_client.daemon import DEADLINE"),
        ("daemon_client/modules/tpm2.py", "from daemon_client.modules.rsa import RsaKey"),
        ("daemon_client/__init__.py", "from daemon_client.daemon import Daemon"),
        ("ecryptfs_cuse/nodes/tree.py", "\n" * 450),
    ],
)
def test_a_module_that_keeps_the_rules_is_left_alone(file: str, source: str) -> None:
    assert violations(file, source) == []
