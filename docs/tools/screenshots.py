"""Takes the pictures of reports in docs/images: `python docs/tools/screenshots.py RUN`, RUN being a finished run.

The pictures in the repository show this run:

    python -m trainers.pipeline --model=resnet8 --dataset=fashion_mnist --train_limit=6000 --run_dir=runs/fashion \
        --recipe=fast --proposals=3 --teacher_epochs=8 --student_epochs=6 --batch_size=128 --budget=macs:0.25 \
        --rivals=uniform,random --formats=saved_model,fp32,dynamic,int8 --test_limit=2000
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))

from docs.tools.browser import DESKTOP, PHONE, browser, missing, screenshot, view

#: Largest size of a picture in bytes, so that the repository stays small.
_MOST_BYTES = 300_000
#: What each picture shows: file, size of the screen, dark colours, section at its top, height.
_PICTURES = (
    ("report.png", DESKTOP, False, None, 1350),
    ("report-answers.png", DESKTOP, False, "answers", 1350),
    ("report-dark.png", DESKTOP, True, "trade-off", 1350),
    ("report-phone.png", PHONE, False, "trade-off", 1500),
)


def main() -> None:
    """Writes the pictures of the run that the command line names."""
    run, *folder = map(Path, sys.argv[1:] or sys.exit(__doc__))
    if reason := missing():
        sys.exit(f"error: {reason}")
    page = run / "report.html"
    if not page.exists():
        sys.exit(f"error: there is no {page}. Give the folder of a finished run.")
    take(page, *(folder or [ROOT / "docs" / "images"]))


def take(page: Path, folder: Path) -> list[Path]:
    """Takes all pictures of a report.

    Args:
        page: The report, with the answers of teacher and student.
        folder: Folder to write to.

    Returns:
        The pictures.
    """
    taken = []
    with browser() as driver:
        for name, size, dark, section, height in _PICTURES:
            view(driver, size, dark=dark)
            driver.get(page.resolve().as_uri())
            # The list of sections would cover the middle of the page.
            top = driver.execute_script(
                "if (arguments[0]) document.querySelector('nav').style.position = 'static';"
                "return arguments[0] ? document.getElementById(arguments[0]).getBoundingClientRect().top - 16 : 0",
                section,
            )
            screenshot(driver, folder / name, top=int(top), height=height)
            if (folder / name).stat().st_size > _MOST_BYTES:
                raise ValueError(f"{folder / name} has more than {_MOST_BYTES:,} bytes.")
            taken.append(folder / name)
    return taken


if __name__ == "__main__":
    main()
