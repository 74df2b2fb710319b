# The tables: the device registry, which is all that there is to lose, and the rate limits, which are not.

# As src/adapters/device-table.ts makes it on a laptop; a test compares the two.
resource "aws_dynamodb_table" "devices" {
  name                        = var.table_names.devices
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "serialNumber"
  deletion_protection_enabled = var.deletion_protection

  dynamic "attribute" {
    for_each = { serialNumber = "S", unfinished = "S", claimExpiresAt = "N", certificateId = "S", product = "S", listing = "S" }
    content {
      name = attribute.key
      type = attribute.value
    }
  }

  global_secondary_index {
    name            = "unfinished"
    hash_key        = "unfinished"
    range_key       = "claimExpiresAt"
    projection_type = "KEYS_ONLY"
  }

  global_secondary_index {
    name            = "certificate"
    hash_key        = "certificateId"
    projection_type = "KEYS_ONLY"
  }

  global_secondary_index {
    name               = "product"
    hash_key           = "product"
    range_key          = "listing"
    projection_type    = "INCLUDE"
    non_key_attributes = ["certificateId", "notAfter"]
  }

  point_in_time_recovery {
    enabled                 = true
    recovery_period_in_days = var.restore_days
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}

# As src/adapters/dynamodb-rate-store.ts makes it on a laptop. What is lost with it is a minute's counts.
resource "aws_dynamodb_table" "rate_limits" {
  name                        = var.table_names.rate_limits
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "key"
  deletion_protection_enabled = var.deletion_protection

  attribute {
    name = "key"
    type = "S"
  }

  ttl {
    enabled        = true
    attribute_name = "expire"
  }

  point_in_time_recovery {
    enabled = true
  }

  server_side_encryption {
    enabled     = true
    kms_key_arn = var.kms_key_arn
  }
}
