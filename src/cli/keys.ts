import { createHash, randomBytes } from 'node:crypto'
import { Command, InvalidArgumentError, Option } from 'commander'

/** `cvm keys …`: API keys. Made here, on nobody else's machine; the service is told their hashes only. */
export function keysCommand (): Command {
  const command = new Command('keys').description('API keys for operators, lines and auditors')
  command.command('create')
    .description('make a key: the key goes to its user, the entry into API_KEYS of the service')
    .requiredOption('--name <name>', 'who has the key, as audit records will say it', nameOf)
    .addOption(new Option('--role <role>', 'what the key may do').choices(['operator', 'line', 'auditor']).makeOptionMandatory())
    .action(({ name, role }: { name: string, role: string }) => {
      const key = `cvm_${randomBytes(32).toString('base64url')}`
      process.stdout.write(`key    ${key}\nentry  ${name}:${role}:${createHash('sha256').update(key).digest('hex')}\n`)
    })
  return command
}

function nameOf (value: string): string {
  if (!/^[A-Za-z0-9._-]{1,64}$/.test(value)) throw new InvalidArgumentError('It must be 1 to 64 letters, digits, dots, dashes or underscores.')
  return value
}
