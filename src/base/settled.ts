/** As Promise.all, but a failure waits for the others, so that whoever closes what was opened knows all of it. */
export async function settled<const T extends readonly unknown[]>(work: T): Promise<{ -readonly [K in keyof T]: Awaited<T[K]> }> {
  await Promise.allSettled(work);
  return Promise.all(work);
}
