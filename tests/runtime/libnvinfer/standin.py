"""A process with NVIDIA's real TensorRT bindings over a libnvinfer and a libcuda of our own: `environment` says how.

    python -m tests.runtime.libnvinfer.standin 11.4 -- python -m toolkit doctor
    python -m tests.runtime.libnvinfer.standin 10.6 --headers DIR -- python -m pytest ...

What it is made of lies in a cache folder (TOOLKIT_STANDIN_CACHE): the bindings' wheel from PyPI, the public headers
from the crate `trtx-sys` (or from DIR, for versions that it has not), and what gcc and g++ make. None of NVIDIA's is
committed.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
SOURCES = HERE / "src"
STUB = HERE.parent / "cuda" / "stub" / "libcuda.c"
CRATE = "trtx-sys"
CRATE_VERSION = "0.9.1"
HIDDEN = ("tensorrt", "tensorrt_rtx", "tensorrt_lean", "tensorrt_dispatch")  # all kinds but the one that is asked for


class Missing(Exception):
    """What the stand-in needs is not here, in a sentence that a skipped test can say."""


@dataclass(frozen=True)
class Kind:
    """A version of TensorRT: its bindings on PyPI, its headers in the crate, and the names of its libraries."""

    wheel: str
    headers: str | None
    module: str
    library: str
    others: tuple[str, ...]


def _full(wheel: str, major: int, headers: str | None = None, *others: str) -> Kind:
    return Kind(
        wheel,
        headers,
        "tensorrt",
        f"libnvinfer.so.{major}",
        (f"libnvonnxparser.so.{major}", f"libnvinfer_plugin.so.{major}", *others),
    )


KINDS = {
    "11.4": _full("tensorrt_cu13_bindings==11.4.0.106", 11, "TRT-Enterprise-11.4"),
    "1.7": Kind(
        "tensorrt_rtx_cu13_bindings==1.7.1.116",
        "TRT-RTX-1.7",
        "tensorrt_rtx",
        "libtensorrt_rtx.so.1",
        ("libtensorrt_onnxparser_rtx.so.1",),
    ),
    "10.6": _full("tensorrt_cu12_bindings==10.6.0", 10),
    "10.3": _full("tensorrt_cu12_bindings==10.3.0", 10),
    "8.6": _full("tensorrt_bindings==8.6.1", 8, None, "libnvparsers.so.8"),
}
IN_CRATE = tuple(version for version, kind in KINDS.items() if kind.headers)


def environment(version: str = "11.4", headers: Path | None = None, **settings: object) -> dict[str, str]:
    """The variables of a child process in which `import tensorrt` gives the real bindings over our library.

    It computes with ONNX Runtime, so that its answers are those of the file. A plan that one process builds loads in
    another, on "Stand-in 0" (SM87, and SM86 for RTX).

    Args:
        version: of `KINDS`. headers: a folder with NvInfer.h and NvOnnxParser.h, for versions that the crate has not.
        settings: STUB_* of libcuda.c and STANDIN_* of the library, such as STANDIN_CUDA_ERROR=35.

    Raises:
        Missing: no compiler, no headers, or no wheel.
    """
    kind, cache = KINDS[version], _cache()
    bindings = _bindings(kind, cache)
    libraries = _libraries(version, kind, cache, headers)
    front = _front(kind, libraries / "front")
    paths = [str(front), str(bindings), *filter(None, [os.environ.get("PYTHONPATH")])]
    found = [str(libraries), *filter(None, [os.environ.get("LD_LIBRARY_PATH")])]
    told = {name: str(value) for name, value in settings.items()}
    if kind.module == "tensorrt_rtx":
        told = {"STUB_CAPABILITY": "86"} | told  # it has no engines for SM87
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "LD_LIBRARY_PATH": os.pathsep.join(found), **told}


def _cache() -> Path:
    told = os.environ.get("TOOLKIT_STANDIN_CACHE")
    folder = Path(told) if told else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "toolkit-standin"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _made_once(folder: Path) -> Iterator[Path | None]:
    """A folder to fill, or None where it has been filled; several processes may ask at once."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if folder.is_dir():
            yield None
            return
        new = folder.with_name(f".{folder.name}.new")
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir()
        yield new
        new.rename(folder)


def _run(what: str, *command: str, limit_s: float = 300) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s)
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Missing(f"{what}: {error}") from error
    if done.returncode:
        raise Missing(f"{what}: {(done.stderr or done.stdout).strip()[-600:]}")


def _bindings(kind: Kind, cache: Path) -> Path:
    """NVIDIA's bindings, unpacked: nothing is installed."""
    folder = cache / f"{kind.wheel.replace('==', '-')}-cp{sys.version_info[0]}{sys.version_info[1]}"
    with _made_once(folder) as new:
        if new is not None:
            pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:", "-d", str(new)]
            _run(f"no wheel of {kind.wheel} is to be had", *pip, kind.wheel)
            for wheel in new.glob("*.whl"):
                zipfile.ZipFile(wheel).extractall(new)
                wheel.unlink()
    return folder


def _headers(version: str, kind: Kind, cache: Path, told: Path | None) -> Path:
    if told is not None:
        lacking = [name for name in ("NvInferImpl.h", "NvOnnxParser.h") if not (told / name).is_file()]
        if lacking:
            raise Missing(f"{told} has no {' and no '.join(lacking)}")
        return told.resolve()
    if kind.headers is None:
        raise Missing(f"the headers of TensorRT {version} are in no crate: --headers {version}=DIR")
    cargo = shutil.which("cargo")
    if cargo is None:
        raise Missing("no cargo to fetch TensorRT's public headers with")
    project = cache / f"{CRATE}-{CRATE_VERSION}"
    with _made_once(project) as new:
        if new is not None:
            (new / "src").mkdir()
            (new / "src" / "lib.rs").touch()
            (new / "Cargo.toml").write_text(
                f'[package]\nname = "headers"\nversion = "0.0.0"\nedition = "2021"\n'
                f'[dependencies]\n{CRATE} = "={CRATE_VERSION}"\n'
            )
            _run(f"{CRATE} cannot be fetched", cargo, "fetch", "-q", "--manifest-path", str(new / "Cargo.toml"))
            home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
            source = next(iter(home.glob(f"registry/src/*/{CRATE}-{CRATE_VERSION}*/TensorRT-Headers")), None)
            if source is None:
                raise Missing(f"{CRATE} {CRATE_VERSION} has no headers where cargo keeps it")
            shutil.copytree(source, new / "headers")
    return project / "headers" / kind.headers


def _libraries(version: str, kind: Kind, cache: Path, told: Path | None) -> Path:
    """A folder with libcuda.so.1 and TensorRT's libraries by their names."""
    c, cpp = shutil.which("gcc"), shutil.which("g++")
    if c is None or cpp is None:
        raise Missing("no gcc and g++ to make a libcuda and a libnvinfer with")
    headers = _headers(version, kind, cache, told)
    sources = [STUB, HERE / "bases.py", HERE / "standin.py", HERE / "front.py", *sorted(SOURCES.iterdir())]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in sources) + str(headers).encode()).hexdigest()[:16]
    folder = cache / f"libraries-{version}-{digest}"
    with _made_once(folder) as new:
        if new is not None:
            shared = ["-shared", "-fPIC", "-O2", "-w"]
            cuda = [
                *shared,
                "-Wl,-soname,libcuda.so.1",
                "-o",
                str(new / "libcuda.so.1"),
                str(STUB),
                "-lpthread",
                "-ldl",
            ]
            _run("gcc does not compile the stand-in libcuda", c, *cuda)
            _compile(cpp, version, kind, headers, new, shared)
    return folder


def _compile(cpp: str, version: str, kind: Kind, headers: Path, folder: Path, shared: list[str]) -> None:
    from tests.runtime.libnvinfer.bases import bases

    (folder / "bases.inc").write_text(bases(headers))
    cuda = next((str(up) for up in (headers, *headers.parents) if (up / "cuda_runtime_api.h").is_file()), str(folder))
    if cuda == str(folder):  # TensorRT's headers want two names of CUDA's
        text = "#pragma once\ntypedef struct CUevent_st* cudaEvent_t;\ntypedef struct CUstream_st* cudaStream_t;\n"
        (folder / "cuda_runtime_api.h").write_text(text)
    options = [*shared, "-std=c++17", f"-I{folder}", f"-I{SOURCES}", f"-I{headers}", f"-I{cuda}"]
    options += ["-DSTANDIN_RTX"] if kind.module == "tensorrt_rtx" else []
    names = [f"-Wl,-soname,{kind.library}", "-o", str(folder / kind.library)]
    _run(f"g++ does not compile TensorRT {version}", cpp, *options, *names, str(SOURCES / "libnvinfer.cpp"), "-ldl")
    empty = folder / "empty.cpp"
    empty.write_text("")
    for name in kind.others:  # what they have lies in the first
        link = [str(empty), "-Wl,--no-as-needed", str(folder / kind.library), f"-Wl,-soname,{name}"]
        _run(f"g++ does not link {name}", cpp, *shared, *link, "-o", str(folder / name))


def _front(kind: Kind, folder: Path) -> Path:
    """A folder with the front module of a kind, as NVIDIA's metapackages have one, and none of the other kinds."""
    with _made_once(folder) as new:
        if new is not None:
            shutil.copyfile(HERE / "front.py", new / "standin_front.py")
            modules = {
                kind.module: f"from {kind.module}_bindings import *\nfrom {kind.module}_bindings import __version__\n"
                f"import standin_front\n\nstandin_front.register({kind.library!r})\n",
                f"{kind.module}_libs": "",  # one that is installed would load NVIDIA's
            }
            for hidden in (name for name in HIDDEN if name != kind.module):
                for name in (hidden, f"{hidden}_bindings"):
                    modules[name] = f"raise ModuleNotFoundError('not for this stand-in', name={name!r})\n"
            for name, text in modules.items():
                (new / name).mkdir()
                (new / name / "__init__.py").write_text(text)
    return folder


def main(words: list[str]) -> int:
    """Runs a command over the stand-in; without one, says the variables that differ."""
    options, command = (words[: words.index("--")], words[words.index("--") + 1 :]) if "--" in words else (words, [])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("version", choices=KINDS)
    parser.add_argument("--headers", type=Path)
    told = parser.parse_args(options)
    try:
        variables = environment(told.version, told.headers)
    except Missing as missing:
        print(missing, file=sys.stderr)
        return 1
    if command:
        return subprocess.run(command, env=variables).returncode
    print("\n".join(f"export {name}={variables[name]}" for name in ("PYTHONPATH", "LD_LIBRARY_PATH")))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
