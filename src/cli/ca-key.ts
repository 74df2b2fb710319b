import type { KeyObject } from 'node:crypto'
import { isCancel, password } from '@clack/prompts'
import { readBytes, readText } from './device-folder.ts'
import { EXIT, Failure } from './failure.ts'
import { kindOf } from './file-kind.ts'
import { privateKeyOf } from './private-key.ts'

/**
 * Reads a CA's private key, encrypted or not. The passphrase comes from a file, or is asked for on a terminal; neither it nor the key
 * is ever printed, sent or written. Throws a `Failure`.
 */
export async function readCaKey (file: string, passphraseFile: string | undefined): Promise<KeyObject> {
  const bytes = await readBytes(file)
  const given = passphraseFile === undefined ? undefined : lineOf(await readText(passphraseFile))
  const passphrase = given ?? (kindOf(bytes).startsWith('an encrypted private key') ? await ask(file) : undefined)
  return privateKeyOf(bytes, file, passphrase)
}

async function ask (file: string): Promise<string> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw new Failure(EXIT.usage, `the key in ${file} is encrypted`, { remedy: 'Give the file with its passphrase: --passphrase-file' })
  }
  const answer = await password({ message: `Passphrase of ${file}`, output: process.stderr })
  if (isCancel(answer)) throw new Failure(EXIT.interrupted, 'interrupted')
  return answer
}

function lineOf (text: string): string {
  return text.replace(/\r?\n$/, '')
}
