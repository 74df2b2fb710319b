// dynalite 4.0.0 brings no types; only what is used here.
declare module 'dynalite' {
  import type { Server } from 'node:http'
  interface Options { createTableMs?: number, deleteTableMs?: number, updateTableMs?: number, path?: string }
  export default function dynalite (options?: Options): Server
}
