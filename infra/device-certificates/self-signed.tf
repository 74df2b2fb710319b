# A certificate that nobody vouches for: AWS IoT trusts exactly this one, because it was added.

locals {
  self_signed_serial_number = "${var.serial_number_prefix}self-signed"
}

resource "tls_private_key" "self_signed" {
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_self_signed_cert" "self_signed" {
  private_key_pem       = tls_private_key.self_signed.private_key_pem
  validity_period_hours = var.validity_hours
  allowed_uses          = ["digital_signature", "client_auth"]

  subject {
    common_name  = local.self_signed_serial_number
    organization = "test"
  }
}

# Without ca_pem: registered without CA (SNI_ONLY, so devices must send the endpoint's name, as all clients do).
resource "aws_iot_certificate" "self_signed" {
  count           = var.register ? 1 : 0
  certificate_pem = trimspace(tls_self_signed_cert.self_signed.cert_pem)
  active          = true
}
