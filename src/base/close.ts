/** What holds a thread, a file or memory until it is closed. */
export interface Closable {
  close?(): Promise<void>;
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
