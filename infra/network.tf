# The VPC, unless there is one, and who reaches whom in it.

locals {
  makes_vpc = var.vpc == null
  zones     = local.makes_vpc ? slice(data.aws_availability_zones.available[0].names, 0, var.zones) : []

  vpc_id              = local.makes_vpc ? aws_vpc.this[0].id : var.vpc.id
  private_subnet_ids  = local.makes_vpc ? aws_subnet.private[*].id : tolist(var.vpc.private_subnet_ids)
  public_subnet_ids   = local.makes_vpc ? aws_subnet.public[*].id : tolist(var.vpc.public_subnet_ids)
  balancer_subnet_ids = var.internal ? local.private_subnet_ids : local.public_subnet_ids

  # X-Forwarded-For is believed from here; only the load balancer reaches the tasks at all.
  balancer_cidrs = local.makes_vpc ? aws_subnet.public[*].cidr_block : values(data.aws_subnet.balancer)[*].cidr_block
}

data "aws_availability_zones" "available" {
  count = local.makes_vpc ? 1 : 0
  state = "available"

  # Local zones have no load balancers.
  filter {
    name   = "opt-in-status"
    values = ["opt-in-not-required"]
  }
}

data "aws_subnet" "balancer" {
  for_each = toset(local.makes_vpc ? [] : local.balancer_subnet_ids)
  id       = each.value
}

resource "aws_vpc" "this" {
  count                = local.makes_vpc ? 1 : 0
  cidr_block           = var.vpc_cidr
  enable_dns_hostnames = true
  tags                 = { Name = var.name }
}

# Whatever is started without a security group of its own reaches nothing.
resource "aws_default_security_group" "this" {
  count  = local.makes_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
}

resource "aws_subnet" "public" {
  count                   = length(local.zones)
  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = local.zones[count.index]
  cidr_block              = cidrsubnet(var.vpc_cidr, 4, count.index)
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-public-${local.zones[count.index]}" }
}

resource "aws_subnet" "private" {
  count                   = length(local.zones)
  vpc_id                  = aws_vpc.this[0].id
  availability_zone       = local.zones[count.index]
  cidr_block              = cidrsubnet(var.vpc_cidr, 4, count.index + 8)
  map_public_ip_on_launch = false
  tags                    = { Name = "${var.name}-private-${local.zones[count.index]}" }
}

resource "aws_internet_gateway" "this" {
  count  = local.makes_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = var.name }
}

resource "aws_route_table" "public" {
  count  = local.makes_vpc ? 1 : 0
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-public" }

  route {
    cidr_block = "0.0.0.0/0"
    gateway_id = aws_internet_gateway.this[0].id
  }
}

resource "aws_route_table_association" "public" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.public[count.index].id
  route_table_id = aws_route_table.public[0].id
}

resource "aws_eip" "nat" {
  count  = var.nat_gateways == "one" ? min(1, length(local.zones)) : length(local.zones)
  domain = "vpc"
  tags   = { Name = "${var.name}-nat-${local.zones[count.index]}" }
}

resource "aws_nat_gateway" "this" {
  count         = length(aws_eip.nat)
  allocation_id = aws_eip.nat[count.index].id
  subnet_id     = aws_subnet.public[count.index].id
  tags          = { Name = "${var.name}-${local.zones[count.index]}" }
  depends_on    = [aws_internet_gateway.this]
}

resource "aws_route_table" "private" {
  count  = length(local.zones)
  vpc_id = aws_vpc.this[0].id
  tags   = { Name = "${var.name}-private-${local.zones[count.index]}" }

  route {
    cidr_block     = "0.0.0.0/0"
    nat_gateway_id = aws_nat_gateway.this[min(count.index, length(aws_nat_gateway.this) - 1)].id
  }
}

resource "aws_route_table_association" "private" {
  count          = length(local.zones)
  subnet_id      = aws_subnet.private[count.index].id
  route_table_id = aws_route_table.private[count.index].id
}

# Costs nothing, and most of the traffic does not pay for the NAT gateway.
resource "aws_vpc_endpoint" "gateway" {
  for_each          = toset(local.makes_vpc ? ["dynamodb", "s3"] : [])
  vpc_id            = aws_vpc.this[0].id
  service_name      = "com.amazonaws.${local.region}.${each.key}"
  vpc_endpoint_type = "Gateway"
  route_table_ids   = aws_route_table.private[*].id
  tags              = { Name = "${var.name}-${each.key}" }
}

# The outside reaches the load balancer, the load balancer the tasks, the tasks AWS.

resource "aws_security_group" "balancer" {
  name        = "${var.name}-balancer"
  description = "Load balancer of ${var.name}"
  vpc_id      = local.vpc_id
}

resource "aws_security_group" "tasks" {
  name        = "${var.name}-tasks"
  description = "Tasks of ${var.name}"
  vpc_id      = local.vpc_id
}

resource "aws_vpc_security_group_ingress_rule" "balancer" {
  for_each          = { for pair in setproduct(local.listener_ports, var.ingress_cidrs) : join(" ", pair) => { port = pair[0], cidr = pair[1] } }
  security_group_id = aws_security_group.balancer.id
  description       = "HTTPS"
  ip_protocol       = "tcp"
  from_port         = each.value.port
  to_port           = each.value.port
  cidr_ipv4         = each.value.cidr
}

resource "aws_vpc_security_group_egress_rule" "balancer" {
  for_each                     = toset([tostring(local.service_port), tostring(local.ops_port)])
  security_group_id            = aws_security_group.balancer.id
  description                  = "Tasks"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.tasks.id
}

resource "aws_vpc_security_group_ingress_rule" "tasks" {
  for_each                     = { service = local.service_port, health = local.ops_port }
  security_group_id            = aws_security_group.tasks.id
  description                  = "Load balancer: ${each.key}"
  ip_protocol                  = "tcp"
  from_port                    = each.value
  to_port                      = each.value
  referenced_security_group_id = aws_security_group.balancer.id
}

# Metrics say how many devices there are and how they fare: for the ones named, not for the VPC.
resource "aws_vpc_security_group_ingress_rule" "prometheus" {
  for_each                     = var.prometheus_security_group_ids
  security_group_id            = aws_security_group.tasks.id
  description                  = "Prometheus"
  ip_protocol                  = "tcp"
  from_port                    = local.ops_port
  to_port                      = local.ops_port
  referenced_security_group_id = each.value
}

resource "aws_vpc_security_group_egress_rule" "tasks" {
  for_each          = { for port in var.egress_ports : tostring(port) => port }
  security_group_id = aws_security_group.tasks.id
  description       = "AWS and what settings name"
  ip_protocol       = "tcp"
  from_port         = each.value
  to_port           = each.value
  cidr_ipv4         = "0.0.0.0/0"
}
