/**
 * What a serial number may look like: it becomes thing name and MQTT client id, so it keeps to what AWS allows in thing names
 * (1–128 of letters, digits, `:`, `_`, `-`), which excludes every MQTT and policy wildcard.
 */
export const SERIAL_NUMBER = '^[a-zA-Z0-9:_-]{1,128}$'

/** The AWS IoT thing of a device. One to one, so that policies with thing variables name the device. */
export function thingNameOf (serialNumber: string): string {
  return serialNumber
}
