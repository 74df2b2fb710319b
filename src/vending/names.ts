/**
 * What a serial number may look like: it is part of the thing name, which is the MQTT client id, so it keeps to what AWS allows in
 * thing names (1–128 of letters, digits, `:`, `_`, `-`), which excludes every MQTT and policy wildcard.
 */
export const SERIAL_NUMBER = '^[a-zA-Z0-9:_-]{1,128}$'
