/** A configuration whose text is not what its client could read: nobody may change it but who wrote it. The message goes on behind "it is". */
export class UnreadableText extends Error {}

/** `line 3, column 7` */
export function positionOf(text: string, offset: number): string {
  const lines = text.slice(0, offset).split("\n");
  return `line ${lines.length}, column ${lines.at(-1)!.length + 1}`;
}
