import { type ControlPlane, ThingNotFound } from './control-plane.ts'
import type { Certificate, Device } from './device.ts'
import { type Products, productOf, thingOf } from './product.ts'

/**
 * Binds a certificate to thing and policy of its device. A thing that was deleted past the service is made again, as a vend makes it.
 * Throws what {@link ControlPlane.bind} throws; a policy that is missing is not made.
 */
export async function bindCertificate (
  device: Device, { certificateArn, thingName }: Certificate, deps: { controlPlane: ControlPlane, products: Products }, signal: AbortSignal
): Promise<void> {
  const { controlPlane } = deps
  const product = productOf(device, deps.products)
  const to = { thingName, policyName: product.policyName }
  try {
    await controlPlane.bind(certificateArn, to, signal)
  } catch (cause) {
    if (!(cause instanceof ThingNotFound)) throw cause
    await controlPlane.ensureThing({ ...thingOf(product, device.serialNumber), thingName }, signal)
    await controlPlane.bind(certificateArn, to, signal)
  }
}
