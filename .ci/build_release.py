"""Wheel and sdist of the last commit, the same bytes wherever they are built.

`python .ci/build_release.py OUT` clones the commit, builds both with the commit's time as
SOURCE_DATE_EPOCH, and packs them again with fixed times, owners, modes and order: setuptools leaves
in an sdist the time and the owner of whoever built it, and in a wheel the modes of a checkout.
"""

from __future__ import annotations

import gzip
import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from pathlib import Path


def repack_sdist(content: bytes, epoch_s: int) -> bytes:
    """The same .tar.gz with fixed times, owners, modes and order."""
    plain = io.BytesIO()
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new,
    ):
        for member in sorted(old.getmembers(), key=lambda entry: entry.name):
            body = old.extractfile(member)
            member.mtime, member.uid, member.gid = epoch_s, 0, 0
            member.uname = member.gname = ""
            member.mode = 0o755 if member.isdir() or member.mode & 0o100 else 0o644
            member.pax_headers = {}
            new.addfile(member, body)
    return gzip.compress(plain.getvalue(), compresslevel=9, mtime=epoch_s)


def repack_wheel(content: bytes, epoch_s: int) -> bytes:
    """The same .whl with fixed times, modes and order; RECORD stays true, it is of contents."""
    packed = io.BytesIO()
    stamp = time.gmtime(epoch_s)[:6]
    with (
        zipfile.ZipFile(io.BytesIO(content)) as old,
        zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as new,
    ):
        for name in sorted(old.namelist()):
            entry = zipfile.ZipInfo(name, stamp)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o100644 << 16
            entry.create_system = 3
            new.writestr(entry, old.read(name))
    return packed.getvalue()


def build(out: Path) -> list[Path]:
    """Build the last commit of the checkout this file is in; returns what was made."""
    root = Path(__file__).parents[1]
    log = ["git", "-C", str(root), "log", "-1", "--format=%ct"]
    epoch_s = int(subprocess.run(log, capture_output=True, text=True, check=True).stdout)
    out.mkdir(parents=True, exist_ok=True)
    made = []
    with tempfile.TemporaryDirectory() as folder:
        source, built = Path(folder, "source"), Path(folder, "built")
        subprocess.run(["git", "clone", "-q", str(root), str(source)], check=True)
        command = [sys.executable, "-m", "build", "--outdir", str(built), str(source)]
        environment = os.environ | {"SOURCE_DATE_EPOCH": str(epoch_s), "PYTHONHASHSEED": "0"}
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
        for path in sorted(built.iterdir()):
            repack = repack_wheel if path.suffix == ".whl" else repack_sdist
            target = out / path.name
            target.write_bytes(repack(path.read_bytes(), epoch_s))
            made.append(target)
    return made


if __name__ == "__main__":
    for path in build(Path(sys.argv[1])):
        print(path)
