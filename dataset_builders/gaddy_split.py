"""The sentences held out by the official large-development split of the corpus `gaddy`.

They are those of `testset_largedev.json` in https://github.com/dgaddy/silent_speech, all of one book: 200 for
development, 100 for the test (one of them is named twice).
"""

import json
from collections.abc import Mapping
from pathlib import Path

from .errors import LayoutError, SplitError

BOOK = "books/War_of_the_Worlds.txt"
_VALIDATION = """
2 6 9 11 22 36 42 43 48 49 53 77 79 91 98 109 116 123 139 150 154 158 160 164 166 180 191 211 221 225 231 233 238 240
242 246 252 263 276 293 305 325 328 333 344 352 370 371 372 390 395 406 407 411 420 423 428 429 433 454 470 472 473
481 504 514 532 535 537 541 548 555 571 572 575 578 579 590 603 612 623 626 639 650 658 662 668 681 683 685 703 711
731 732 751 752 763 764 772 783 785 789 809 818 822 829 838 840 847 856 865 871 874 875 885 895 897 899 903 918 921
947 950 952 953 955 957 965 966 988 996 1014 1024 1032 1040 1059 1062 1069 1071 1092 1108 1111 1125 1134 1137 1146
1185 1189 1190 1211 1217 1220 1222 1224 1243 1252 1254 1262 1267 1276 1283 1288 1289 1313 1315 1330 1343 1344 1348
1361 1365 1366 1370 1373 1394 1395 1401 1407 1431 1450 1456 1464 1465 1473 1482 1485 1497 1502 1508 1516 1523 1525
1526 1533 1542 1547 1576 1577 1582 1586
"""

_TEST = """
73 75 106 126 127 130 147 153 176 181 200 209 210 213 216 217 226 229 262 267 268 273 279 282 295 326 330 363 373 432
444 447 450 455 456 458 469 476 491 498 499 502 505 508 522 536 539 598 615 616 624 659 676 678 687 710 714 768 794
806 830 845 866 872 873 876 886 898 906 910 937 967 968 983 1008 1012 1035 1044 1045 1055 1064 1102 1114 1131 1210
1241 1277 1319 1328 1349 1371 1386 1397 1418 1444 1445 1487 1537 1559
"""

Location = tuple[str, int]
"""A sentence: book, and index of the sentence in it."""


def official_split() -> dict[Location, str]:
    """Split ("validation" or "test") of every sentence that is held out."""
    groups = {"validation": _VALIDATION, "test": _TEST}
    return {(BOOK, int(index)): split for split, indices in groups.items() for index in indices.split()}


def read_split(path: Path) -> dict[Location, str]:
    """As `official_split`, from a file {"dev": [[book, sentence_index], ...], "test": [...]}.

    Raises:
        LayoutError: there is no such file, or it is not of this form.
        SplitError: a sentence is in both splits.
    """
    form = 'it must be {"dev": [[book, sentence_index], ...], "test": [...]}'
    try:
        groups = json.loads(path.read_bytes())
    except OSError as error:
        raise LayoutError(f"{path} cannot be read ({error.strerror}): correct split_file") from error
    except (ValueError, RecursionError) as error:
        raise LayoutError(f"{path} is not valid JSON ({error}): {form}") from error
    if not isinstance(groups, Mapping) or set(groups) != {"dev", "test"}:
        raise LayoutError(f"{path}: {form}")
    split_of: dict[Location, str] = {}
    for group, split in (("dev", "validation"), ("test", "test")):
        for position, entry in enumerate(groups[group] if isinstance(groups[group], list) else [None]):
            match entry:
                case [str(book), int(index)] if not isinstance(index, bool):
                    if split_of.setdefault((book, index), split) != split:
                        raise SplitError(f"{path}: {book}, sentence {index} is in both dev and test: name it once")
                case _:
                    raise LayoutError(f"{path}: entry {position} of {group!r} is {entry!r}; {form}")
    return split_of
