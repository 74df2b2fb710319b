type Write = (fields: object, message: string) => void

/** The part of a pino logger that is used here. */
export interface Log { readonly debug: Write, readonly info: Write, readonly warn: Write, readonly error: Write }
