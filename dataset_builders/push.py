"""A prepared folder to the Hub: looked through first, private unless told otherwise, and only when asked for twice.

plan = plan_push("uci_emg_200", "me/uci-emg-200")
print(plan.report())
push(plan)
"""

import re
from dataclasses import dataclass
from pathlib import Path

import datasets
import httpx2
import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import DatasetCard, HfApi
from huggingface_hub.errors import (
    HFValidationError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
)
from huggingface_hub.utils import validate_repo_id

from .errors import LayoutError, PushError
from .hub import MANIFEST
from .inspection import PREPROCESSOR
from .inspection_report import table
from .protocols import SPLITS

CARD = "README.md"
MOST_FILES = 20  # that a report lists
# What may be passed on changed, as filtered windows are; "nd" licences allow copies only.
OPEN_LICENCES = re.compile(
    r"cc0-1\.0|cc-by(-nc)?(-sa)?-[234]\.\d|mit|apache-2\.0|bsd.*|odc-by|odbl|pddl|gpl.*|lgpl.*|unlicense|cdla-.*"
)
_SHARD = re.compile(r"(?P<split>\w+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.parquet")


@dataclass(frozen=True)
class PushPlan:
    """What an upload would do.

    Attributes:
        folder: whole, as far as reading all of it can tell.
        repo_id: of the dataset repository.
        public: whether everybody may see it.
        files: paths within the folder and sizes in bytes.
        rows: per split.
        licence: as the card states it; None if it does not.
    """

    folder: Path
    repo_id: str
    public: bool
    files: tuple[tuple[str, int], ...]
    rows: dict[str, int]
    licence: str | None

    @property
    def warning(self) -> str | None:
        """Why the data must not, or may not, be passed on."""
        if self.licence is None or self.licence == "other":
            stated = "states no licence" if self.licence is None else "has terms of its own (licence: other)"
            return (
                f"{CARD} {stated}: ask who owns the recordings before you give them to anybody, and write the licence "
                f"into {CARD}"
            )
        if not OPEN_LICENCES.fullmatch(self.licence.lower()):
            return f"the licence {self.licence} is not known to allow passing on changed data: read it first"
        return None

    def report(self) -> str:
        """The files, sizes, licence and warnings as text."""
        total = sum(size for _, size in self.files)
        shown = [(name, _size(size)) for name, size in self.files[:MOST_FILES]]
        if more := len(self.files) - len(shown):
            shown.append((f"and {more} more", ""))
        listed = table(("file", "size"), [*shown, ("in all", _size(total))])
        rows = ", ".join(f"{split} {count}" for split, count in self.rows.items())
        visibility = "public" if self.public else "private"
        lines = [f"{self.folder} -> https://huggingface.co/datasets/{self.repo_id} ({visibility})", "", listed, ""]
        lines += [f"rows     {rows}", f"licence  {self.licence or 'not stated'}"]
        return "\n".join([*lines, *([f"warning  {self.warning}"] if self.warning else [])])


def plan_push(folder: str | Path, repo_id: str, public: bool = False) -> PushPlan:
    """Look through a folder written by `prepare`; nothing is sent.

    Args:
        folder: every shard in it is read.
        repo_id: "user/name" or "organisation/name".
        public: whether everybody may see the repository.

    Raises:
        PushError: the name cannot be a repository's, or the licence does not allow to publish.
        LayoutError: the folder is no prepared dataset, is not finished, or is damaged.
    """
    folder = Path(folder).expanduser()
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise PushError(f"{repo_id!r} cannot be the name of a repository: {error}") from error
    if repo_id.count("/") != 1:
        raise PushError(f"{repo_id!r} lacks an owner: write user/{repo_id} or organisation/{repo_id}")
    for name in (MANIFEST, PREPROCESSOR, CARD):
        if not (folder / name).is_file():
            raise LayoutError(f"{folder} is not a finished dataset of `tinymyo prepare`: it has no {name}")
    if folder.name.endswith(".incomplete"):
        raise LayoutError(f"{folder} is not finished: run the same `tinymyo prepare` again, which goes on with it")
    card = _read_card(folder)
    shards = _whole_shards(folder)
    rows = _count_rows(folder, shards)
    _compare_with_card(folder, card, rows)
    names = sorted([CARD, MANIFEST, PREPROCESSOR, *shards])
    files = tuple((name, (folder / name).stat().st_size) for name in names)
    plan = PushPlan(folder, repo_id, public, files, rows, card.data.license or None)
    if public and plan.warning:
        raise PushError(f"{folder} is not published: {plan.warning}; or upload it privately")
    return plan


def push(plan: PushPlan, api: HfApi | None = None) -> str:
    """Upload; what is already there is not sent again, and shards that no longer belong are removed.

    Args:
        plan: as `plan_push` made it.
        api: the client to use; by default one with the token of `hf auth login`.

    Returns:
        The address of the repository.

    Raises:
        PushError: not logged in, no permission, no connection, or a private upload to a public repository.
    """
    api = api or HfApi()
    try:
        _check_visibility(plan, api)
        address = api.create_repo(plan.repo_id, repo_type="dataset", private=not plan.public, exist_ok=True)
        api.upload_folder(
            repo_id=plan.repo_id,
            folder_path=plan.folder,
            repo_type="dataset",
            commit_message="Upload dataset prepared with tinymyo-hf",
            allow_patterns=[name for name, _ in plan.files],
            delete_patterns=["data/*.parquet"],
        )
    except LocalTokenNotFoundError as error:
        raise PushError(f"{plan.repo_id}: you are not logged in: run `hf auth login` first") from error
    except (httpx2.HTTPError, OfflineModeIsEnabled, OSError) as error:  # what the Hub refuses is an HTTPError, too
        raise PushError(
            f"{plan.repo_id} could not be uploaded ({' '.join(str(error).split())}): check name, token and connection, "
            "and run the same command again; what has arrived is not sent twice"
        ) from error
    return str(address)


def _check_visibility(plan: PushPlan, api: HfApi) -> None:
    """`create_repo` leaves a repository that exists as it is."""
    try:
        info = api.repo_info(plan.repo_id, repo_type="dataset")
    except RepositoryNotFoundError:
        return
    if not info.private and not plan.public:
        raise PushError(f"{plan.repo_id} exists and is public: choose another name, or pass public=True (--public)")


def _read_card(folder: Path) -> DatasetCard:
    try:
        return DatasetCard.load(folder / CARD)
    except Exception as error:  # the YAML parser and the card classes raise almost anything
        raise LayoutError(
            f"{folder / CARD}: its front matter cannot be read ({error}): prepare the data again"
        ) from error


def _whole_shards(folder: Path) -> list[str]:
    """The shards as paths within the folder; `-of-00004` in a name says how many there must be."""
    numbers: dict[tuple[str, int], set[int]] = {}
    names = []
    for path in sorted((folder / "data").glob("*")):
        match = _SHARD.fullmatch(path.name)
        if match is None:
            raise LayoutError(f"{path} does not belong to a prepared dataset: take it out of the folder")
        numbers.setdefault((match["split"], int(match["count"])), set()).add(int(match["number"]))
        names.append(f"data/{path.name}")
    if not names:
        raise LayoutError(f"{folder / 'data'} holds no shards: prepare the data again")
    for (split, count), found in numbers.items():
        missing = sorted(set(range(count)) - found)
        if missing:
            raise LayoutError(
                f"{folder}: {len(missing)} of the {count} shards of {split} are missing, the first is number "
                f"{missing[0]}: copy the folder again, or prepare it again"
            )
    return names


def _count_rows(folder: Path, shards: list[str]) -> dict[str, int]:
    """Rows per split, after reading everything."""
    rows = dict.fromkeys((split for split in SPLITS if any(name.startswith(f"data/{split}-") for name in shards)), 0)
    for name in datasets.utils.tqdm(shards, unit=" files", desc="Checking"):
        try:
            with pq.ParquetFile(folder / name, page_checksum_verification=True) as file:
                count = sum(len(file.read_row_group(group)) for group in range(file.num_row_groups))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise LayoutError(
                f"{folder / name} cannot be read ({error}): delete the folder and prepare the data again"
            ) from error
        split = Path(name).name.split("-")[0]
        rows[split] = rows.get(split, 0) + count
    return rows


def _compare_with_card(folder: Path, card: DatasetCard, rows: dict[str, int]) -> None:
    info = card.data.get("dataset_info") or {}
    try:
        stated = {split["name"]: split["num_examples"] for split in info["splits"]}
    except (KeyError, TypeError) as error:
        raise LayoutError(f"{folder / CARD} does not say how many rows there are: prepare the data again") from error
    if stated != rows:
        raise LayoutError(f"{folder}: {CARD} states {stated} rows, the shards hold {rows}: prepare the data again")


def _size(count: int) -> str:
    value, units = float(count), iter(("B", "kB", "MB", "GB"))
    unit = next(units)
    while value >= 1000 and unit != "GB":
        value, unit = value / 1000, next(units)
    return f"{value:.3g} {unit}"
