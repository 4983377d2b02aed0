import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { UsageError } from "../../base/errors.ts";
import { commandWord, textWidth } from "../../base/text.ts";
import type { Evaluation, Mistake } from "../evaluate/tally.ts";
import type { TrainConfig } from "../run/config.ts";
import type { TrainEvent } from "../run/events.ts";
import { RunFolder, readRunConfig } from "../run/run-folder.ts";
import { version } from "../version.ts";
import { lineChart, smooth, thin } from "./chart.ts";
import { duration, escaped, grouped, percent, short } from "./html.ts";
import { confusionMatrix } from "./matrix.ts";
import { style } from "./style.ts";
import { thumbnail } from "./thumbnail.ts";

export interface ReportOptions {
  /** The bytes of a picture by its name, for the mistakes' pictures; without it they are told of in words alone. */
  picture?: (name: string) => Promise<Uint8Array | undefined>;
}

/** Writes a run folder's `report.html`: one file that needs nothing else. */
export async function writeReport(path: string, { picture }: ReportOptions = {}): Promise<void> {
  const folder = new RunFolder(path);
  const config = await readRunConfig(path);
  const events = await folder.readMetrics();
  const text = await readFile(folder.file("evaluation"), "utf8").catch((cause) => {
    throw new UsageError({
      message: "the run has not been evaluated, so there is nothing to report",
      at: path,
      help: "go on with it by --resume",
      cause,
    });
  });
  const evaluation = JSON.parse(text) as Evaluation;
  await folder.writeText("report", await page({ path, config, events, evaluation, picture }));
}

interface Content extends ReportOptions {
  path: string;
  config: TrainConfig;
  events: readonly TrainEvent[];
  evaluation: Evaluation;
}

async function page(content: Content): Promise<string> {
  const { config, evaluation } = content;
  const sections = [
    figures(content),
    curves(content),
    classTable(evaluation),
    matrixSection(evaluation),
    await mistakeSection(content),
    configSection(content),
  ];
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>${escaped(config.model)}: ${percent(evaluation.top1)}</title><style>${style}</style></head>
<body><main>
<header><h1>${escaped(config.model)}</h1><p>learned ${escaped(evaluation.classes.length)} classes from ${escaped(basename(config.data))}${typeof config.val === "string" ? `, judged by ${escaped(basename(config.val))}` : ", judged by its validation pictures"}</p></header>
${sections.join("\n")}
<footer>oriel ${escaped(version)}</footer>
</main></body></html>
`;
}

const ofType = <T extends TrainEvent["type"]>(
  events: readonly TrainEvent[],
  type: T,
): Extract<TrainEvent, { type: T }>[] =>
  events.filter((event): event is Extract<TrainEvent, { type: T }> => event.type === type);

/** The numbers that a reader wants first. */
function figures({ events, evaluation }: Content): string {
  const epochs = ofType(events, "epoch");
  const best = epochs.filter((e) => e.best).at(-1);
  const { top1, top5, loss, correct, total, classes } = evaluation;
  const skipped = Math.max(evaluation.skipped, new Set(ofType(events, "skip").map((e) => e.picture)).size);
  const seconds = epochs.reduce((sum, e) => sum + e.seconds, 0);
  const cards = [
    [percent(top1), `top-1, ${grouped(correct)} of ${grouped(total)}`],
    ...(classes.length > 5 ? [[percent(top5), "top-5"]] : []),
    [short(loss), "validation loss"],
    [best ? `${best.epoch} of ${epochs.length}` : "–", "best epoch"],
    [duration(seconds), `${Math.round(epochs.at(-1)?.imagesPerSecond ?? 0)} pictures a second`],
    ...(skipped > 0 ? [[grouped(skipped), `unreadable picture${skipped === 1 ? "" : "s"} left out`]] : []),
  ];
  return `<div class="figures">${cards.map(([value, what]) => `<div><b>${escaped(value)}</b><span>${escaped(what)}</span></div>`).join("")}</div>`;
}

function curves({ events }: Content): string {
  const steps = ofType(events, "step");
  const epochs = ofType(events, "epoch");
  if (steps.length === 0) return "";
  const { stepsPerEpoch } = steps[0];
  const along = (value: (e: (typeof steps)[number]) => number): [number, number][] =>
    thin(
      steps.map((e): [number, number] => [e.step / stepsPerEpoch, value(e)]),
      400,
    );
  const perEpoch = (value: (e: (typeof epochs)[number]) => number): [number, number][] =>
    epochs.map((e) => [e.epoch, value(e)]);
  const losses = along((e) => e.loss);
  const radius = Math.max(1, Math.round(losses.length / 40));
  const best = epochs.filter((e) => e.best).at(-1);
  const mark = best && epochs.length > 1 ? { x: best.epoch, label: "best" } : undefined;
  const x = "epoch";
  const charts = [
    lineChart({
      title: "Loss",
      x,
      y: "cross-entropy",
      mark,
      series: [
        { name: "a step", points: losses, color: 1, faint: true },
        { name: "training", points: smooth(losses, radius), color: 1 },
        { name: "validation", points: perEpoch((e) => e.valLoss), color: 2, dots: true },
      ],
    }),
    lineChart({
      title: "Accuracy",
      x,
      y: "share of pictures",
      mark,
      format: (v, more = 0) => percent(v, more),
      series: [
        { name: "training", points: perEpoch((e) => e.accuracy), color: 1, dots: true },
        { name: "validation, top-1", points: perEpoch((e) => e.top1), color: 2, dots: true },
      ],
    }),
    lineChart({
      title: "Learning rate",
      x,
      y: "learning rate",
      series: [{ name: "learning rate", points: along((e) => e.lr), color: 3 }],
    }),
  ];
  if (steps.every((e) => e.gradNorm !== undefined)) {
    const norms = along((e) => e.gradNorm as number);
    charts.push(
      lineChart({
        title: "Gradient norm before clipping",
        x,
        y: "norm",
        series: [
          { name: "a step", points: norms, color: 3, faint: true },
          { name: "smoothed", points: smooth(norms, radius), color: 3 },
        ],
      }),
    );
  }
  return `<h2>How it learned</h2><p>Where training pictures are seen cropped, flipped, mixed or otherwise changed, their loss and accuracy look worse than they would on the pictures as they are.</p><div class="charts">${charts.join("")}</div>`;
}

/** Classes from the hardest to the easiest. */
function classTable({ classes }: Evaluation): string {
  const rate = (c: Evaluation["classes"][number]): number => (c.total === 0 ? 0 : c.correct / c.total);
  const longest = Math.ceil(0.6 * Math.max(...classes.map((c) => textWidth(c.name))));
  const rows = classes
    .filter((c) => c.total > 0)
    .sort((a, b) => rate(a) - rate(b))
    .map(
      (c) =>
        `<div class="class"><span title="${escaped(c.name)}">${escaped(c.name)}</span><span class="bar"><i style="width:${(100 * rate(c)).toFixed(1)}%"></i></span><span class="n">${percent(rate(c))}</span><span class="of">${grouped(c.correct)} of ${grouped(c.total)}</span></div>`,
    );
  return `<h2>Classes</h2><p>The share of each class's validation pictures that were recognised, the hardest first.</p><div class="classes" style="--name:${longest}em">${rows.join("")}</div>`;
}

const mostClasses = 150;

function matrixSection({ classes, confusion }: Evaluation): string {
  if (!confusion || classes.length > mostClasses) return "";
  const names = classes.map((c) => c.name);
  return `<h2>What is taken for what</h2><p>A row is what pictures are, a column what they were taken for; the diagonal is right. The stronger the colour, the larger the share of the row.</p>${confusionMatrix(names, confusion)}`;
}

async function mistakeSection({ evaluation, picture }: Content): Promise<string> {
  const { mistakes } = evaluation;
  if (mistakes.length === 0) return "<h2>Worst mistakes</h2><p>There are none.</p>";
  const items = await Promise.all(mistakes.map((mistake) => mistakeItem(mistake, picture)));
  return `<h2>Worst mistakes</h2><p>The pictures whose own class the model found least likely. Some may have a wrong label.</p><ul class="mistakes">${items.join("")}</ul>`;
}

async function mistakeItem(
  { image, label, predicted, probability }: Mistake,
  picture: ReportOptions["picture"],
): Promise<string> {
  const bytes = await picture?.(image).catch(() => undefined);
  const thumb = bytes && (await thumbnail(bytes));
  const shown = thumb ? `<img${thumb.small ? ' class="small"' : ""} src="${thumb.url}" alt="${escaped(label)}">` : "";
  return `<li>${shown}<p><b>${escaped(label)}</b> taken for <b class="wrong">${escaped(predicted)}</b> at ${percent(probability, 0)}<small title="${escaped(image)}">${escaped(image.split(/[\\/]/).slice(-2).join("/"))}</small></p></li>`;
}

function configSection({ path, config }: Content): string {
  const rows = Object.entries(config)
    .filter(([key, value]) => value !== undefined && key !== "resume")
    .map(([key, value]) => `<div><dt>${escaped(key)}</dt><dd>${escaped(shown(value))}</dd></div>`);
  const command = `oriel train --config ${commandWord(`${path}/config.json`)} --out ${commandWord(`${path}-again`)}`;
  return `<h2>The same again</h2><p>With the same pictures, the same seed and as many threads, this gives the same numbers.</p><pre>${escaped(command)}</pre><h2>Settings</h2><p></p><dl>${rows.join("")}</dl>`;
}

const shown = (value: unknown): string => {
  if (Array.isArray(value)) return value.length === 0 ? "none" : value.join(", ");
  return typeof value === "number"
    ? String(Number(value.toPrecision(6)))
    : typeof value === "boolean"
      ? value
        ? "yes"
        : "no"
      : String(value);
};
