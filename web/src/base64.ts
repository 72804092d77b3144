const PIECE = 2 ** 16;

/** Bytes of base64. A page may hold hundreds of megabytes: they are decoded piece by piece. */
export function decodeBase64(text: string): Uint8Array {
  const padding = text.endsWith('==') ? 2 : text.endsWith('=') ? 1 : 0;
  const bytes = new Uint8Array((text.length / 4) * 3 - padding);
  for (let at = 0, out = 0; at < text.length; at += PIECE) {
    const piece = atob(text.slice(at, at + PIECE));
    for (let i = 0; i < piece.length; i++) bytes[out++] = piece.charCodeAt(i);
  }
  return bytes;
}
