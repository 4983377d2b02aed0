/** What holds a thread, a file or memory until it is closed. */
export interface Closable {
  close?(): Promise<void>;
}

/** All that is being made, or none: where one of them fails, the others are given back. */
export async function allOrNone<T>(making: readonly Promise<T>[], giveBack: (made: T) => unknown): Promise<T[]> {
  const results = await Promise.allSettled(making);
  const made = results.flatMap((result) => (result.status === "fulfilled" ? [result.value] : []));
  const failed = results.find((result) => result.status === "rejected");
  if (!failed) return made;
  await Promise.all(made.map(giveBack));
  throw failed.reason;
}

/** What `work` gives; `owners` are closed where it fails, since nobody else could then. */
export async function closingOnError<T>(owners: readonly Closable[], work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    await Promise.all(owners.map((owner) => owner.close?.()));
    throw error;
  }
}
