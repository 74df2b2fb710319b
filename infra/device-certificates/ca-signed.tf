# A manufacturer's CA, and a device certificate that it signs. Without register_ca AWS IoT never hears of the CA: whoever adds the
# certificate must check who signed it.

locals {
  ca_subject              = "CA test signer"
  ca_signed_serial_number = "${var.serial_number_prefix}ca-signed"
}

resource "tls_private_key" "ca" {
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_self_signed_cert" "ca" {
  private_key_pem       = tls_private_key.ca.private_key_pem
  validity_period_hours = var.validity_hours
  is_ca_certificate     = true
  allowed_uses          = ["cert_signing", "crl_signing"]

  subject {
    organization = local.ca_subject
  }
}

resource "tls_private_key" "ca_signed" {
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_cert_request" "ca_signed" {
  private_key_pem = tls_private_key.ca_signed.private_key_pem

  subject {
    common_name  = local.ca_signed_serial_number
    organization = "CA test"
  }
}

resource "tls_locally_signed_cert" "ca_signed" {
  cert_request_pem      = tls_cert_request.ca_signed.cert_request_pem
  ca_private_key_pem    = tls_private_key.ca.private_key_pem
  ca_cert_pem           = tls_self_signed_cert.ca.cert_pem
  validity_period_hours = var.validity_hours
  allowed_uses          = ["digital_signature", "client_auth"]
}

# With ca_pem AWS IoT checks the signature itself, and takes the CA only once it is registered.
resource "aws_iot_certificate" "ca_signed" {
  count           = var.register ? 1 : 0
  certificate_pem = trimspace(tls_locally_signed_cert.ca_signed.cert_pem)
  ca_pem          = var.register_ca ? trimspace(tls_self_signed_cert.ca.cert_pem) : null
  active          = true
  depends_on      = [aws_iot_ca_certificate.this]
}

# To register the CA, its key signs a certificate whose common name is the account's registration code.

data "aws_iot_registration_code" "this" {
  count = var.register_ca ? 1 : 0
}

resource "tls_private_key" "verification" {
  count       = var.register_ca ? 1 : 0
  algorithm   = var.key_algorithm
  rsa_bits    = local.rsa_bits
  ecdsa_curve = local.ecdsa_curve
}

resource "tls_cert_request" "verification" {
  count           = var.register_ca ? 1 : 0
  private_key_pem = tls_private_key.verification[0].private_key_pem

  subject {
    common_name = data.aws_iot_registration_code.this[0].registration_code
  }
}

resource "tls_locally_signed_cert" "verification" {
  count                 = var.register_ca ? 1 : 0
  cert_request_pem      = tls_cert_request.verification[0].cert_request_pem
  ca_private_key_pem    = tls_private_key.ca.private_key_pem
  ca_cert_pem           = tls_self_signed_cert.ca.cert_pem
  validity_period_hours = var.validity_hours
  allowed_uses          = ["digital_signature"]
}

resource "aws_iot_ca_certificate" "this" {
  count                        = var.register_ca ? 1 : 0
  active                       = true
  allow_auto_registration      = var.auto_registration
  ca_certificate_pem           = trimspace(tls_self_signed_cert.ca.cert_pem)
  verification_certificate_pem = trimspace(tls_locally_signed_cert.verification[0].cert_pem)
}
