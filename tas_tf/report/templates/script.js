"use strict";
// Without this script the page shows the same: tables can't be sorted then, and points show their values as titles.
(() => {
  const status = document.getElementById("status");
  const say = (text) => { status.textContent = text; };

  const valueOf = (row, column) => {
    const cell = row.cells[column];
    const given = cell.dataset.v;
    if (given !== undefined) return given === "" ? null : Number(given);
    const text = cell.textContent.trim();
    return text === "-" ? null : text;
  };
  const compare = (one, other) =>
    typeof one === "number" ? one - other : one.localeCompare(other, "en", { numeric: true });

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    heads.forEach((head, column) => {
      if (head.tagName !== "TH") return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((each) => each.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const body = table.tBodies[0];
        const rows = [...body.rows].map((row) => [row, valueOf(row, column)]);
        // What isn't known stays at the end.
        rows.sort(([, one], [, other]) =>
          one === null || other === null ? (one === null) - (other === null) : (down ? -1 : 1) * compare(one, other));
        body.append(...rows.map(([row]) => row));
        say(`Sorted by ${button.textContent.trim()}, ${down ? "descending" : "ascending"}`);
      });
    });
  }

  for (const plot of document.querySelectorAll(".plot")) {
    const plane = plot.querySelector(".plane");
    const points = [...plane.querySelectorAll(".point")];
    const tip = plot.querySelector(".tip");
    const seen = () => points.filter((point) => !point.hidden);
    const inOrder = () => seen().sort((one, other) => parseFloat(one.style.left) - parseFloat(other.style.left));

    const show = (point) => {
      const [title, rest] = [point.dataset.title, JSON.parse(point.dataset.details)];
      const strong = document.createElement("strong");
      strong.textContent = title;
      tip.replaceChildren(strong, ...rest.map(([label, text]) => {
        const line = document.createElement("div");
        line.textContent = `${label} ${text}`;
        return line;
      }));
      tip.hidden = false;
      const x = point.offsetLeft + 12, y = point.offsetTop + 12;
      const left = Math.min(Math.max(x - tip.offsetWidth / 2, -plane.offsetLeft), plane.clientWidth - tip.offsetWidth);
      tip.style.left = `${left}px`;
      tip.style.top = `${y - tip.offsetHeight - 16 < 0 ? y + 16 : y - tip.offsetHeight - 16}px`;
    };
    const hide = () => { tip.hidden = true; };
    const only = (chosen) => points.forEach((point) => { point.tabIndex = point === chosen ? 0 : -1; });

    only(inOrder()[0]);
    for (const point of points) {
      point.removeAttribute("title");
      point.addEventListener("mouseenter", () => show(point));
      point.addEventListener("mouseleave", () => (document.activeElement === point ? show(point) : hide()));
      point.addEventListener("focus", () => { only(point); show(point); });
      point.addEventListener("blur", hide);
      point.addEventListener("click", () => point.focus());
      point.addEventListener("keydown", (event) => {
        const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") hide();
        if (step === undefined) return;
        event.preventDefault();
        const ordered = inOrder();
        ordered[(ordered.indexOf(point) + step + ordered.length) % ordered.length].focus();
      });
    }
    const chips = plot.querySelector(".chips");
    if (chips) {
      chips.hidden = false;
      const buttons = [...chips.querySelectorAll("button")];
      for (const button of buttons) {
        button.addEventListener("click", () => {
          buttons.forEach((each) => each.setAttribute("aria-pressed", String(each === button)));
          points.forEach((point) => { point.hidden = Boolean(button.value) && point.dataset.group !== button.value; });
          hide();
          only(inOrder()[0]);
          say(`${seen().length} points shown`);
        });
      }
    }
  }

  const copy = async (code) => {
    try {
      await navigator.clipboard.writeText(code.textContent);
      return true;
    } catch {
      // The clipboard is only available on file: and https: pages.
      const selection = window.getSelection();
      selection.selectAllChildren(code);
      const done = document.execCommand("copy");
      if (done) selection.removeAllRanges();
      return done;
    }
  };
  for (const button of document.querySelectorAll(".copy")) {
    button.hidden = false;
    button.addEventListener("click", async () => {
      const done = await copy(button.parentElement.querySelector("code"));
      button.textContent = done ? "Copied" : "Selected: press Ctrl+C";
      say(button.textContent);
      setTimeout(() => { button.textContent = "Copy"; }, 2500);
    });
  }

  let opened = [];
  window.addEventListener("beforeprint", () => {
    opened = [...document.querySelectorAll("details:not([open])")];
    opened.forEach((each) => { each.open = true; });
  });
  window.addEventListener("afterprint", () => opened.forEach((each) => { each.open = false; }));
})();
