import { cutTo, textWidth } from "../../base/text.ts";
import { escaped, percent } from "./html.ts";

/**
 * A confusion matrix as a heat map: rows are what pictures are, columns what they were taken for, colour the share of the row.
 * Names stand beside it from 2 to 100 classes; numbers in the cells where they fit.
 */
export function confusionMatrix(classes: readonly string[], counts: readonly (readonly number[])[]): string {
  const n = classes.length;
  const cell = Math.min(n <= 4 ? 72 : 46, Math.max(9, Math.floor(760 / n)));
  const font = Math.min(12, Math.max(7, cell - 2));
  const names = classes.map((name) => (textWidth(name) > 18 ? `${cutTo(name, 17)}…` : name));
  const margin = Math.ceil(Math.max(...names.map(textWidth)) * font * 0.58) + 10;
  const [left, top] = [margin, Math.ceil(margin * (cell >= 34 ? 0.75 : 1)) + 20];
  const side = n * cell;
  const centre = (i: number): number => i * cell + cell / 2;
  const rows = names.map(
    (name, i) =>
      `<text class="name" x="${left - 6}" y="${top + centre(i)}" dy=".34em" text-anchor="end">${escaped(name)}</text>`,
  );
  const angle = cell >= 34 ? -45 : -90;
  const columns = names.map(
    (name, i) =>
      `<text class="name" transform="translate(${left + centre(i)} ${top - 6}) rotate(${angle})" dy="${angle === -90 ? ".34em" : 0}">${escaped(name)}</text>`,
  );
  const right = cell >= 34 ? Math.round(margin * 0.75) : 8;
  return `<div class="wide"><svg class="matrix" style="font-size:${font}px" width="${left + side + right}" height="${top + side + 6}" role="img" aria-label="Confusion matrix">
<text class="label" x="${left}" y="11">taken for →</text><text class="label" x="${left - 6}" y="${top - 8}" text-anchor="end">is ↓</text>
<rect class="ground" x="${left}" y="${top}" width="${side}" height="${side}"/>${counts.map((row, i) => cells(row, i)).join("")}${rows.join("")}${columns.join("")}</svg></div>`;

  function cells(row: readonly number[], i: number): string {
    const total = row.reduce((a, b) => a + b, 0);
    return row
      .map((count, j) => {
        if (count === 0) return "";
        const share = count / total;
        // Errors are few where a model is good; the root keeps a share of 2 % visible.
        const strength = i === j ? 0.15 + 0.85 * share : Math.min(1, 0.12 + 0.88 * Math.sqrt(share));
        const [x, y] = [left + j * cell, top + i * cell];
        const gap = cell > 14 ? 1 : 0;
        const title = `<title>${escaped(classes[i])} taken for ${escaped(classes[j])}: ${count} of ${total} (${percent(share)})</title>`;
        const rect = `<rect class="${i === j ? "hit" : "miss"}" x="${x}" y="${y}" width="${cell - gap}" height="${cell - gap}" fill-opacity="${strength.toFixed(2)}">${title}</rect>`;
        if (cell < 22 || String(count).length * font * 0.6 > cell - 2) return rect;
        return `${rect}<text class="count${strength > 0.55 ? " strong" : ""}" x="${x + (cell - gap) / 2}" y="${y + (cell - gap) / 2}" dy=".34em" text-anchor="middle">${count}</text>`;
      })
      .join("");
  }
}
