/** The bundled worker as text; build.mjs makes it. */
declare module 'tinc:worker' {
  const code: string;
  export default code;
}
