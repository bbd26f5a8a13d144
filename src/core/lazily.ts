/** A verb whose module is loaded when it is called for the first time: most processes run one command and need little. */
export function lazily<M, N extends keyof M>(load: () => Promise<M>, name: N): M[N] {
  const call = async (...args: unknown[]) => ((await load())[name] as (...all: unknown[]) => unknown)(...args);
  return call as M[N]; // every verb returns a promise
}
