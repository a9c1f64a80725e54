"""The local model store: models by name, addressed by content, with their lineage.

``objects/HASH.safetensors`` holds a model, ``names/NAME.json`` says which one a name means. A name moves to
the model that was added under it last, like a branch; the earlier one stays reachable by its hash. Objects
are written before names and every file takes its place in one step, so a crash leaves no half model;
a lock makes processes that change the store wait for each other.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from advkit.core import files, runs
from advkit.core.errors import ConfigError, DataError, ModelError, OutputError, did_you_mean
from advkit.models.card import ModelCard, Parent, Relation
from advkit.models.header import SUFFIXES, read_card

if TYPE_CHECKING:  # listings read headers without PyTorch
    from advkit.models.model import Model


@dataclass(frozen=True)
class Kin:
    """A model in its family tree."""

    hash: str
    names: tuple[str, ...]
    """Its names in the store; what it was called when its child was made, if it is there no more."""
    card: ModelCard | None
    """None where the model is not in the store, or cannot be read."""
    relation: Relation | None
    """To the model above it; None at the top."""
    children: tuple[Kin, ...]


class Store:
    """Models on this machine.

    Args:
        root: the store's own folder; by default ``models/`` under ``$ADVKIT_HOME``, or ``~/.advkit``.
    """

    def __init__(self, root: Path | str | None = None) -> None:
        home = Path(os.environ.get("ADVKIT_HOME") or "~/.advkit").expanduser()
        self.root = Path(root) if root is not None else home / "models"
        self._objects = self.root / "objects"
        self._names = self.root / "names"

    def add(self, model: Model, name: str) -> str:
        """Stores a model under a name, which moves if another model had it; returns the model's hash.

        The same weights added again keep one object, with the newer card.

        Raises:
            ConfigError: a name of other characters than letters, digits, ``.``, ``_`` and ``-``.
            OutputError: the store cannot be written.
        """
        from advkit.models.checkpoint import save_model

        refuse_bad_name(name)
        digest = model.hash
        with self._locked():
            save_model(model, self._object(digest), overwrite=True)
            files.write_json(self._name(name), {"hash": digest, "created": runs.now()})
        return digest

    def get(self, name: str, *, arch: str | None = None) -> Model:
        """The model of a name, or of the beginning of a hash; ``arch`` as in `load_checkpoint`.

        Raises:
            ModelError: there is none, or its file is damaged.
        """
        from advkit.models.checkpoint import load_checkpoint

        model = load_checkpoint(self.path(name), arch=arch)
        self.refuse_other(name, model)
        return model

    def refuse_other(self, name: str, model: Model) -> None:
        """Raises a `ModelError` if ``model``, read for ``name``, has not the hash that names its file."""
        if model.hash != (digest := self.hash(name)):
            raise ModelError(
                f"{self._object(digest)} holds another model (hash {model.hash[:12]}): it was exchanged or "
                f"damaged; `advkit models rm {name}`, and add the model again"
            )

    def path(self, name: str) -> Path:
        """The file of the model called ``name``, or whose hash begins with it."""
        return self._object(self.hash(name))

    def hash(self, name: str) -> str:
        """The whole hash of a name, or of the beginning of a hash (4 digits or more).

        Raises:
            ModelError: no model of that name or hash.
            ConfigError: several models' hashes begin so.
        """
        names = self.names()
        if name in names:
            return names[name]
        if name in self.damaged:
            raise ModelError(
                f"{self._name(name)} is damaged; `advkit models rm {name}`, and add the model again"
            )
        if re.fullmatch(r"[0-9a-f]{4,64}", name):
            found = [digest for digest in self._hashes() if digest.startswith(name)]
            if len(found) > 1:
                raise ConfigError(f"{name!r} begins the hashes {', '.join(found)}; write more of it")
            if found:
                return found[0]
        raise ModelError(
            f"there is no model called {name!r} in the store{did_you_mean(name, names)}; "
            "`advkit models ls` lists them",
            code="model-not-found",
        )

    def names(self) -> dict[str, str]:
        """Names and the hashes they mean, in the order of the names; without those that are `damaged`."""
        return {name: digest for name, digest in self._named() if digest}

    @property
    def damaged(self) -> list[str]:
        """Names whose files cannot be read."""
        return [name for name, digest in self._named() if not digest]

    def _named(self) -> Iterator[tuple[str, str | None]]:
        for path in sorted(self._names.glob("[!.]*.json"), key=lambda path: path.stem):
            try:
                digest = files.read_json(path).get("hash")
            except FileNotFoundError:
                continue  # another process has just removed it
            except (DataError, OSError):
                digest = None
            yield path.stem, digest if re.fullmatch(r"[0-9a-f]{64}", str(digest)) else None

    def cards(self) -> Iterator[tuple[tuple[str, ...], str, ModelCard | None]]:
        """(names, hash, card) of every model, the named ones first; no card where its file cannot be read."""
        names: dict[str, list[str]] = {}
        for name, digest in self.names().items():
            names.setdefault(digest, []).append(name)
        for digest in [*names, *(digest for digest in self._hashes() if digest not in names)]:
            try:
                card = read_card(self._object(digest))
            except ModelError:
                card = None
            yield tuple(names.get(digest, ())), digest, card

    def remove(self, name: str) -> None:
        """Forgets a name, and deletes its model if no other name means it; a model that has no name is
        deleted by its hash.

        Raises:
            ModelError: there is none.
            ConfigError: a hash whose model has names.
        """
        with self._locked():
            if name in self.damaged:
                self._name(name).unlink()
                return
            digest = self.hash(name)
            others = [other for other, meant in self.names().items() if meant == digest and other != name]
            if name in self.names():
                self._name(name).unlink()
            elif others:
                raise ConfigError(f"model {name!r} is called {', '.join(others)}; remove it by name")
            if not others:
                self._object(digest).unlink(missing_ok=True)

    def export(self, name: str, path: Path | str, *, overwrite: bool = False) -> Path:
        """Writes a model as a file of its own, in the format of the suffix."""
        from advkit.models.checkpoint import read_checkpoint, write_checkpoint

        source = self.path(name)
        card, state = read_checkpoint(source)
        if card is None:
            raise ModelError(f"{source} has no card, so advkit did not write it; delete it")
        return write_checkpoint(card, state, path, overwrite=overwrite)

    def import_(self, path: Path | str, name: str, *, arch: str | None = None) -> str:
        """Adds a file, loaded as `advkit.load_model` would; returns the model's hash."""
        from advkit.models.load import load_model  # which looks for names here

        return self.add(load_model(Path(path), arch=arch), name)

    def family(self, name: str) -> tuple[Kin, ...]:
        """The family of a model: its oldest known ancestors, each with all descendants below it."""
        members = {digest: (names, card) for names, digest, card in self.cards()}
        called: dict[str, str] = {}
        children: dict[str, list[tuple[Relation, str]]] = {}

        def parents(digest: str) -> tuple[Parent, ...]:
            card = members[digest][1] if digest in members else None
            return card.lineage if card else ()

        for digest in members:
            for parent in parents(digest):
                called.setdefault(parent.hash, parent.name)
                children.setdefault(parent.hash, []).append((parent.relation, digest))

        def oldest(digest: str, below: tuple[str, ...]) -> Iterator[str]:
            above = [parent.hash for parent in parents(digest) if parent.hash not in below]
            for parent in above:
                yield from oldest(parent, (*below, parent))
            if not above:
                yield digest

        def tree(digest: str, relation: Relation | None, above: tuple[str, ...]) -> Kin:
            names, card = members.get(digest, ((called[digest],) if called.get(digest) else (), None))
            path = (*above, digest)
            below = (tree(child, kind, path) for kind, child in children.get(digest, ()) if child not in path)
            return Kin(digest, names, card, relation, tuple(below))

        digest = self.hash(name)
        return tuple(tree(root, None, ()) for root in dict.fromkeys(oldest(digest, (digest,))))

    def _object(self, digest: str) -> Path:
        return self._objects / f"{digest}.safetensors"

    def _name(self, name: str) -> Path:
        return self._names / f"{name}.json"

    def _hashes(self) -> list[str]:
        return sorted(path.stem for path in self._objects.glob("[!.]*.safetensors"))

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps other processes from changing the store, and clears what crashed ones left half written."""
        from filelock import FileLock

        try:
            with files.writing(self.root):
                self.root.mkdir(parents=True, exist_ok=True)
                if (self.root / ".lock").is_symlink():
                    raise OSError(errno.ELOOP, "its .lock is a link")
                with FileLock(self.root / ".lock"):
                    for leftover in self.root.glob("*/.*.tmp"):
                        leftover.unlink(missing_ok=True)
                    yield
        except OutputError as error:
            reason = error.__cause__.strerror if isinstance(error.__cause__, OSError) else error
            raise OutputError(
                f"cannot write to the model store {self.root} ({reason}); "
                "free some space, or set ADVKIT_HOME to a folder that you may write to"
            ) from error


def refuse_bad_name(name: str) -> None:
    """Raises a `ConfigError` when no model can be called so; worth asking before an hour's work."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        raise ConfigError(
            f"{name!r} cannot be the name of a model; use up to 100 letters, digits, '.', '_' and '-', "
            "beginning with a letter or digit"
        )
    if name.endswith(SUFFIXES):
        raise ConfigError(f"the name {name!r} would read as a file; leave {Path(name).suffix} out")
