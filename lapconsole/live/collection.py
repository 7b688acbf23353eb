"""Entities a screen has read by itself, kept for its table: by id, each with a number that grows when it changes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from types import MappingProxyType
from typing import Generic, TypeVar

E = TypeVar("E")


class Collection(Generic[E]):
    """Takes whole lists and single entities, and says which ids that changed."""

    def __init__(self, id_of: Callable[[E], str]) -> None:
        self._id_of: Callable[[E], str] = id_of
        self._entities: dict[str, E] = {}
        self.entities: Mapping[str, E] = MappingProxyType(self._entities)
        self._versions: dict[str, int] = {}
        self._clock = 0

    def version(self, entity_id: str) -> int:
        """A number that grows with each change of an entity; 0 when unknown."""
        return self._versions.get(entity_id, 0)

    def replace_all(self, entities: Iterable[E]) -> frozenset[str]:
        """Take over a complete list; gives the ids that came, went or changed."""
        wanted = {self._id_of(entity): entity for entity in entities}
        gone = self._entities.keys() - wanted.keys()
        changed = {key for key, entity in wanted.items() if self._entities.get(key) != entity}
        for key in gone:
            self.remove(key)
        for key in changed:
            self.put(wanted[key])
        return frozenset(gone | changed)

    def put(self, entity: E) -> frozenset[str]:
        """Take over one entity."""
        key = self._id_of(entity)
        if self._entities.get(key) == entity:
            return frozenset()
        self._clock += 1
        self._entities[key], self._versions[key] = entity, self._clock
        return frozenset({key})

    def remove(self, entity_id: str) -> frozenset[str]:
        """Take over that one is gone. An unknown id is fine."""
        self._versions.pop(entity_id, None)
        return frozenset() if self._entities.pop(entity_id, None) is None else frozenset({entity_id})
