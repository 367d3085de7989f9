"""Prefix beam search for CTC: hypotheses, one frame at a time, all of them at once in numpy.

A hypothesis is a prefix: what has been decoded so far, whichever alignments led to it. Its probability is the sum over
these, kept apart by whether the last frame was blank (Graves, "Supervised sequence labelling", 2012, section 7.5.3;
Hannun et al., arXiv:1408.2873). The score of the language model depends on the prefix alone, so it is part of both.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .decoding_lm import CharacterLanguageModel, Context

_ROOT_KEY = np.uint64(0x9E3779B97F4A7C15)
_FACTORS = np.array([0xBF58476D1CE4E5B9, 0x94D049BB133111EB], np.uint64)


@dataclass(frozen=True)
class BeamOptions:
    """See `BeamSearchDecoder`."""

    beam_size: int
    max_labels_per_step: int
    lm_weight: float
    insertion_bonus: float
    max_delay: int | None


class Prefix:
    """A node of the tree of hypotheses: one of them, or what some of them begin with.

    Attributes:
        parent: the prefix without its last label; None at the root, which moves on with what is stable.
        children: the prefixes with one more label, by label.
        live: whether it is a hypothesis itself.
        label: the last label.
        depth: how many labels it has.
        frame: when the last label was added.
        key: a 64-bit hash of the labels, by which arrays find the parent of a hypothesis among the others. That two
            prefixes share a key is ruled out for practical purposes (about 1e-10 in an hour of decoding).
        context: what the language model sees of it.
    """

    __slots__ = ("children", "context", "depth", "frame", "key", "label", "live", "parent")

    def __init__(self, parent: Prefix | None, label: int, frame: int, key: int, context: Context | None):
        self.parent = parent
        self.children: dict[int, Prefix] = {}
        self.live = True
        self.label = label
        self.depth = 0 if parent is None else parent.depth + 1
        self.frame = frame
        self.key = key
        self.context = context

    def cut_to(self, depth: int) -> Prefix:
        """The prefix of its first `depth` labels; itself, if it has no more."""
        node = self
        while node.depth > depth and node.parent is not None:
            node = node.parent
        return node

    def drop(self) -> None:
        """No hypothesis any more: takes it out of the tree, and with it what no other hypothesis begins with."""
        self.live = False
        node = self
        while not node.live and not node.children and node.parent is not None:
            del node.parent.children[node.label]
            node = node.parent


class Beam:
    """The hypotheses of one sequence after the frames so far.

    Args:
        num_labels: size of the vocabulary.
        blank: its id.
        options: sizes and weights.
        language_model: scores every prefix besides; None for none.
    """

    def __init__(
        self, num_labels: int, blank: int, options: BeamOptions, language_model: CharacterLanguageModel | None
    ):
        self.blank = blank
        self.options = options
        self.lm = language_model
        self._frame, self._settled = 0, 0
        self._root = root = Prefix(None, blank, 0, int(_ROOT_KEY), self.lm.start() if self.lm else None)
        # One entry per hypothesis, in no order: probabilities (natural log) of ending in blank and in a label, keys of
        # the prefix and of its parent, the last label (blank at the root), and what backspace would add to the score.
        self.prefixes = [root]
        self._ends_blank, self._ends_label = np.zeros(1), np.full(1, -np.inf)
        self._keys, self._parent_keys = np.array([_ROOT_KEY]), np.zeros(1, np.uint64)
        self._last, self._undo = np.array([blank]), np.zeros(1)
        self._rank = np.full(num_labels, -1)
        self._scores = np.full(num_labels, -np.inf)

    def step(self, frame: np.ndarray, considered: np.ndarray) -> None:
        """One frame.

        Args:
            frame: (vocabulary,) log probabilities.
            considered: ids of the labels to be looked at, the blank where it is among them.
        """
        labels = considered[considered != self.blank]
        scores = self._scores
        scores[:] = -np.inf
        scores[considered] = frame[considered]
        total = np.logaddexp(self._ends_blank, self._ends_label)
        stays_blank = total + scores[self.blank]
        stays_label = self._ends_label + scores[self._last]  # the same label goes on
        # A label that is pressed again needs a blank in between.
        grows = np.where(self._last[:, None] == labels, self._ends_blank[:, None], total[:, None]) + scores[labels]
        if self.lm is not None:
            grows += self._gains(labels)
        self._merge(grows, stays_label, labels)
        self._select(stays_blank, stays_label, grows, labels)
        self._frame += 1
        if self.options.max_delay is not None:
            self._settle(self._frame - self.options.max_delay)

    def end(self) -> None:
        """Scores of the language model for the words that are cut off by the end."""
        if self.lm is not None:
            endings = self.options.lm_weight * np.array([self.lm.end(prefix.context) for prefix in self.prefixes])
            self._ends_blank += endings
            self._ends_label += endings

    def best(self) -> tuple[Prefix, float]:
        """The most probable prefix, and the log of its probability, scores of the language model included."""
        total = np.logaddexp(self._ends_blank, self._ends_label)
        best = int(total.argmax())
        return self.prefixes[best], float(total[best])

    def settled(self) -> list[int]:
        """The labels that all hypotheses have in common, behind those that were given out before."""
        labels, node = [], self._root
        while not node.live and len(node.children) == 1:
            (node,) = node.children.values()
            labels.append(node.label)
        self._root, node.parent = node, None
        return labels

    def _gains(self, labels: np.ndarray) -> np.ndarray:
        """What the language model adds to prefixes that grow by labels, (hypotheses, labels)."""
        contexts = [prefix.context for prefix in self.prefixes]
        gains = self.options.lm_weight * self.lm.scores(contexts, labels) + self.options.insertion_bonus
        gains[:, labels == self.lm.backspace] = self._undo[:, None]
        return gains

    def _merge(self, grows: np.ndarray, stays_label: np.ndarray, labels: np.ndarray) -> None:
        """Adds growth into a prefix that is already a hypothesis to that one, in place."""
        self._rank[labels] = np.arange(len(labels))
        children, parents = np.nonzero(self._parent_keys[:, None] == self._keys)
        columns = self._rank[self._last[children]]
        self._rank[labels] = -1
        children, parents, columns = (each[columns >= 0] for each in (children, parents, columns))
        stays_label[children] = np.logaddexp(stays_label[children], grows[parents, columns])
        grows[parents, columns] = -np.inf

    def _select(self, stays_blank: np.ndarray, stays_label: np.ndarray, grows: np.ndarray, labels: np.ndarray) -> None:
        """Goes on with the best hypotheses."""
        count = len(self.prefixes)
        scores = np.concatenate([np.logaddexp(stays_blank, stays_label), grows.ravel()])
        if len(scores) > self.options.beam_size:
            chosen = np.argpartition(-scores, self.options.beam_size - 1)[: self.options.beam_size]
        else:
            chosen = np.arange(len(scores))
        chosen = chosen[scores[chosen] > -np.inf]
        old = chosen[chosen < count]
        parents, columns = np.divmod(chosen[chosen >= count] - count, max(len(labels), 1))
        added = labels[columns]
        keys = _child_keys(self._keys[parents], added)
        new = self._grown(parents, added, keys)
        self._keep(old)
        self.prefixes += new
        self._ends_blank = np.concatenate([stays_blank[old], np.full(len(new), -np.inf)])
        self._ends_label = np.concatenate([stays_label[old], grows[parents, columns]])
        self._parent_keys = np.concatenate([self._parent_keys[old], self._keys[parents]])
        self._keys = np.concatenate([self._keys[old], keys])
        self._last = np.concatenate([self._last[old], added])
        if self.lm is not None:
            self._undo = np.concatenate([self._undo[old], [self._backspace_gain(prefix.context) for prefix in new]])

    def _grown(self, parents: np.ndarray, labels: np.ndarray, keys: np.ndarray) -> list[Prefix]:
        new = []
        for i, label, key in zip(parents.tolist(), labels.tolist(), keys.tolist(), strict=True):
            parent = self.prefixes[i]
            child = parent.children.get(label)
            if child is None:
                context = self.lm.extend(parent.context, label) if self.lm is not None else None
                child = parent.children[label] = Prefix(parent, label, self._frame, key, context)
            child.live = True  # again, where others that begin with it have outlived it
            new.append(child)
        return new

    def _keep(self, kept: np.ndarray) -> None:
        """Drops all prefixes but those at some indices."""
        dropped = np.ones(len(self.prefixes), bool)
        dropped[kept] = False
        for i in np.flatnonzero(dropped):
            self.prefixes[i].drop()
        self.prefixes = [self.prefixes[i] for i in kept]

    def _settle(self, frame: int) -> None:
        """Drops hypotheses that differ from the best in what it had before `frame`."""
        node, _ = self.best()
        while node.depth > self._settled and node.frame >= frame and node.parent is not None:
            node = node.parent
        if node.depth <= self._settled:
            return
        self._settled = node.depth
        kept = np.flatnonzero([prefix.cut_to(node.depth) is node for prefix in self.prefixes])
        self._keep(kept)
        self._ends_blank, self._ends_label = self._ends_blank[kept], self._ends_label[kept]
        self._keys, self._parent_keys = self._keys[kept], self._parent_keys[kept]
        self._last = self._last[kept]
        if self.lm is not None:
            self._undo = self._undo[kept]

    def _backspace_gain(self, context: Context) -> float:
        """Takes back what the last key was given; nothing where nothing is left."""
        if context.parent is None:
            return 0.0
        return -self.options.lm_weight * context.score - self.options.insertion_bonus


def _child_keys(keys: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Hashes of prefixes with one more label each, uint64 of any shape (the mixing of splitmix64)."""
    mixed = keys + _ROOT_KEY * (labels.astype(np.uint64) + np.uint64(1))
    for factor, shift in zip(_FACTORS, (np.uint64(30), np.uint64(27)), strict=True):
        mixed = (mixed ^ (mixed >> shift)) * factor
    return mixed ^ (mixed >> np.uint64(31))
