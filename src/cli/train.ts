import { basename, dirname, resolve } from "node:path";
import { commandWord, some } from "../base/text.ts";
import { resumedConfig, type TrainEvent, train, trainSchema } from "../train/index.ts";
import { runFolderOf } from "../train/run/run-folder.ts";
import { defineCommand, maybe } from "./command.ts";
import { importFlags } from "./import.ts";
import { duration, percent } from "./out.ts";
import { Progress } from "./progress.ts";

/** Whether a config is that of the run whose folder it lies in, which may have moved. */
function isOfRun(file: string, out: unknown): boolean {
  const folder = dirname(file);
  if (typeof out === "string" && resolve(folder) === resolve(out)) return true;
  return basename(file) === "config.json" && runFolderOf(file) !== undefined;
}

export default defineCommand({
  name: "train",
  summary: "Train or fine-tune a model on labelled pictures",
  details:
    "<data> is a folder with a folder of pictures for each class, a .csv list, or a .tar archive of class folders.\n" +
    "Everything a run leaves lies in its folder: checkpoints, metrics.jsonl, model.onnx, report.html.",
  args: {
    data: maybe("pictures in class folders, a .csv list or a .tar archive; --config or --resume may name it instead"),
  },
  imports: true,
  flags: trainSchema,
  short: { model: "m", out: "o", epochs: "e", batch: "b" },
  // A run's own config.json names the run's folder, where only --resume may write; another run of it gets a folder of its own.
  config: ({ out, ...values }, { file, asked }) => {
    if (!isOfRun(file, out)) return { out, ...values };
    return asked.resume ? { out: dirname(file), ...values } : values;
  },
  base: async (given) => (given.resume ? resumedConfig(given) : {}),
  examples: [
    [
      "oriel train photos --model cswin_tiny_224",
      "learns the classes of photos/cats, photos/dogs, …; a tenth is set aside to validate",
    ],
    [
      "oriel train train.tar --val test.tar -m cswin_micro_32 -e 15 --seed 1",
      "small pictures from archives, the same run every time",
    ],
    ["oriel train photos -m swin_tiny_patch4_window7_224 --weights swin.safetensors", "starts from published weights"],
    ["oriel train --resume --out runs/cswin_micro_32", "goes on with a run that was stopped, as it was told then"],
  ],
  async run(config, out) {
    const progress = new Progress();
    let weights: Extract<TrainEvent, { what: "weights" }> | undefined;
    let report: string | undefined;
    const onEvent = (event: TrainEvent): void => {
      if (event.type === "save" && event.what === "report") report = event.file;
      if (event.type === "load" && event.what === "weights") weights = event;
      progress.on(event);
    };
    try {
      const result = await train(config, { onEvent, signal: out.stopSignal() });
      progress.clear();
      const { outcome, epochs, step, top1, seconds, folder } = result;
      const { from, share, convention, rows, totals } = weights ?? {};
      const loaded = weights && { weights: { from, share, convention, rows, totals } };
      out.result({ outcome, epochs, step, top1, seconds, folder, ...loaded }, () => {
        const ended = {
          finished: "finished",
          stopped: "stopped early, since validation no longer got better,",
          interrupted: "interrupted",
        }[outcome];
        const best = top1 === undefined ? "" : `, best validation accuracy ${percent(top1)}`;
        const lines = [
          `${ended} after ${some(epochs, "epoch")} in ${duration(seconds)}${best}`,
          `run folder: ${folder}`,
        ];
        if (report) lines.push(`report:     ${report}`);
        if (outcome === "interrupted") {
          const words = ["oriel", "train", "--resume", "--out", folder, ...importFlags()];
          lines.push(`go on with: ${words.map(commandWord).join(" ")}`);
        }
        return lines.join("\n");
      });
    } finally {
      progress.clear();
    }
  },
});
