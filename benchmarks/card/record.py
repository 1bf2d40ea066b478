"""What was measured: a line of JSON for each item as soon as it is there, and tables of all."""

import json
import os
import platform
import subprocess
import time
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "timm",
            "transformers", "sentence-transformers")  # fmt: skip
OPTIONAL = ("tyro", "tensorflow-datasets", "grain", "array_record", "tensorboardX", "torch",
            "torchvision", "timm", "transformers", "sentence-transformers", "pytest")  # fmt: skip
"""What the program, or a part of it, can do without."""


PEERS = {
    "whole loop, batch": "torch, batch",
    "step, batch": "torch, batch",
    "MiniLM, jaxcl": "MiniLM, sentence-transformers",
    "views of 32, jaxcl": "views of 32, torch",
    "views of 224, jaxcl": "views of 224, torch",
}
"""Beginnings of items, and of those with the same end that they are held against."""


FIELDS = {"part", "item", "status", "figures", "at"}
"""What every row has."""


class Record:
    """The results of one folder, over any number of calls and processes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.file = folder / "results.jsonl"
        self.current = folder / "current.json"

    def rows(self) -> list[dict[str, Any]]:
        """All rows, oldest first; one that was cut short is left out."""
        text = self.file.read_text(errors="replace") if self.file.exists() else ""
        found = (parsed(line) for line in text.splitlines())
        return [row for row in found if row.keys() >= FIELDS and isinstance(row["figures"], dict)]

    def add(self, part: str, item: str, status: str, figures: dict[str, Any], **more: Any) -> None:
        """Writes a row at once, and the tables anew.

        Args:
          part: heading of the table.
          item: what was measured.
          status: "done"; else what became of it: "failed", "wrong", "over its limit", "absent",
            "unfinished".
          figures: column names, with units, and values.
          more: what else is kept: seconds spent, a note.
        """
        row = {"part": part, "item": item, "status": status, "figures": figures, **more}
        line = json.dumps(row | {"at": time.time()}, default=float) + "\n"
        before = self.file.read_bytes()[-1:] if self.file.exists() else b""
        with self.file.open("a") as file:  # a row that was cut short must not take this one along
            file.write(line if before in (b"", b"\n") else "\n" + line)
        with suppress(OSError):  # the row is safe, and the tables are written again with the next
            (self.folder / "results.md").write_text(self.markdown())

    def ratios(self) -> list[str]:
        """jaxcl's rates over PyTorch's, where both were measured."""
        latest = {key: row for key, row in self.latest().items() if row["status"] == "done"}
        found = []
        for (part, item), row in latest.items():
            for own, peer in PEERS.items():
                if item.startswith(own):
                    name = peer + item.removeprefix(own)
                    other = latest.get((part, name), {"figures": {}})
                    for rate in ("images/s", "sentences/s"):
                        both = [r["figures"].get(rate) for r in (row, other)]
                        if all(both):
                            found.append(f"{part}: {item} / {name} {both[0] / both[1]:.2f}")
        return found

    def begin(self, part: str, item: str, limit: float) -> None:
        """Notes what is being measured, so that who watches can end it."""
        told = {"part": part, "item": item, "limit": limit, "since": time.time()}
        write_whole(self.current, json.dumps(told))

    def end(self) -> None:
        """Nothing is being measured."""
        self.current.unlink(missing_ok=True)

    def running(self) -> dict[str, Any] | None:
        """What is being measured, if anything."""
        try:
            found = parsed(self.current.read_text(errors="replace"))
        except OSError:
            return None
        return found if {"part", "item", "limit", "since"} <= found.keys() else None

    def latest(self) -> dict[tuple[str, str], dict[str, Any]]:
        """The newest row of every item, in the order in which items first came."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for row in self.rows():
            found[row["part"], row["item"]] = row
        return found

    def markdown(self) -> str:
        """A table for each part, ready for RESULTS.md."""
        about = self.folder / "machine.json"
        lines = []
        if about.exists():
            told = parsed(about.read_text(errors="replace"))
            lines = ["; ".join(f"{name} {value}" for name, value in told.items()), ""]
        parts: dict[str, list[dict[str, Any]]] = {}
        for row in self.latest().values():
            parts.setdefault(row["part"], []).append(row)
        for part, rows in parts.items():
            columns = list(dict.fromkeys(name for row in rows for name in row["figures"]))
            lines += [f"### {part}", "", f"| | {' | '.join([*columns, ''])} |"]
            lines.append("|---" + "|---:" * len(columns) + "|---|")
            for row in rows:
                cells = [shown(row["figures"].get(name, "")) for name in columns]
                note = row.get("note", "") if row["status"] == "done" else told_of(row)
                cells = [cell.replace("|", "/") for cell in (row["item"], *cells, note)]
                lines.append(f"| {' | '.join(' '.join(cell.split()) for cell in cells)} |")
            lines.append("")
        if ratios := self.ratios():
            lines += [
                "### jaxcl's rate over the other's",
                "",
                *(f"- {line}" for line in ratios),
                "",
            ]
        return "\n".join(lines)


def shown(value: Any) -> str:
    """A figure as people read it."""
    if not isinstance(value, float):
        return f"{value:,}" if isinstance(value, int) else str(value)
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def told_of(row: dict[str, Any]) -> str:
    """Why an item has no figures, in one line."""
    return f"{row['status']}: {row.get('note', '')}"[:160]


def parsed(text: str) -> dict[str, Any]:
    """A JSON object; an empty one where the text is something else."""
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def write_whole(path: Path, text: str) -> None:
    """Writes a file that is never seen half written."""
    part = path.with_suffix(".part")
    part.write_text(text)
    part.replace(path)


def machine(device: Any) -> dict[str, str]:
    """What the figures were measured on."""
    told = {"date": time.strftime("%Y-%m-%d"), "card": device.device_kind, "driver": driver()}
    told |= {"processors": str(os.cpu_count()), "Python": platform.python_version()}
    told |= {name: found for name in PACKAGES if (found := installed(name))}
    return told


def installed(package: str) -> str:
    """Its version, or nothing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def driver() -> str:
    """Version of the card's driver."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20)
    except (OSError, subprocess.SubprocessError):
        return "none"
    return done.stdout.splitlines()[0].strip()


def missing() -> list[str]:
    """Optional packages that are not installed, as what to type to bring them along."""
    return [name for name in OPTIONAL if not installed(name)]
