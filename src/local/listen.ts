import { once } from 'node:events'
import type { AddressInfo, Server } from 'node:net'

/** A setting that names a port. */
type PortSetting = 'LOCAL_IOT_PORT' | 'LOCAL_MQTT_PORT' | 'LOCAL_DYNAMODB_PORT'

/** A port could not be had; says which setting would change it. */
class PortUnavailableError extends Error {
  readonly setting: PortSetting

  constructor (setting: PortSetting, host: string, port: number, cause: unknown) {
    const code = (cause as NodeJS.ErrnoException).code ?? String(cause)
    const why = code === 'EADDRINUSE' ? 'is taken' : `cannot be used (${code})`
    super(`${host}:${port} ${why}; set ${setting} to another port, 0 for any free one`, { cause })
    this.name = 'PortUnavailableError'
    this.setting = setting
  }
}

/** Listens and resolves with the port really taken; 0 takes any free one. */
export async function listen (server: Server, host: string, port: number, setting: PortSetting): Promise<number> {
  try {
    server.listen(port, host)
    await once(server, 'listening')
  } catch (error) {
    throw new PortUnavailableError(setting, host, port, error)
  }
  return (server.address() as AddressInfo).port
}

/** `host:port` as it stands in a URL: no client can connect to the wildcard addresses, and IPv6 needs brackets. */
export function authority (host: string, port: number): string {
  const name = host === '0.0.0.0' || host === '::' ? 'localhost' : host
  return name.includes(':') ? `[${name}]:${port}` : `${name}:${port}`
}
