/** The bundled worker as text; build.mjs makes it. */
declare module 'tinc:worker' {
  const code: string;
  export default code;
}

/** The WebAssembly of assembly/mixing.ts; build.mjs makes it. */
declare module 'tinc:mixing' {
  const code: Uint8Array<ArrayBuffer>;
  export default code;
}
