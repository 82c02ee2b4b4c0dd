# The flags in LaunchDarkly and a PostgreSQL on AWS: an example to take over, not a module to depend on.
#   terraform init && terraform apply -var launchdarkly_access_token=… -var vpc_id=… -var 'subnet_ids=[…]' …
terraform {
  required_version = ">= 1.5"
  required_providers {
    launchdarkly = { source = "launchdarkly/launchdarkly", version = "~> 2.25" }
    aws          = { source = "hashicorp/aws", version = "~> 6.0" }
  }
}

variable "launchdarkly_access_token" {
  description = "May create flags and a project."
  type        = string
  sensitive   = true
}

variable "environment" {
  description = "The LaunchDarkly environment whose SDK key the router has."
  type        = string
  default     = "production"
}

variable "vpc_id" {
  description = "Where the router runs."
  type        = string
}

variable "subnet_ids" {
  description = "Private subnets, in two zones or more."
  type        = list(string)
}

variable "router_security_group_id" {
  description = "Whoever may reach the ledger."
  type        = string
}

provider "launchdarkly" {
  access_token = var.launchdarkly_access_token
}

# ---------------------------------------------------------------- flags

locals {
  # Written by `pointsman flags definitions`: the service's own table, so that the two cannot differ.
  flags = { for flag in jsondecode(file("${path.module}/flags.json")) : flag.key => flag }
}

resource "launchdarkly_project" "payments" {
  key  = "payments"
  name = "Payments"
  environments {
    key              = var.environment
    name             = title(var.environment)
    color            = "7B42BC"
    require_comments = true
    confirm_changes  = true
  }
}

resource "launchdarkly_feature_flag" "routing" {
  for_each       = local.flags
  project_key    = launchdarkly_project.payments.key
  key            = each.key
  name           = each.key
  description    = each.value.description
  variation_type = each.value.kind
  temporary      = false
  tags           = ["payments", "pointsman"]

  dynamic "variations" {
    for_each = each.value.variations
    content {
      value = variations.value
    }
  }

  defaults {
    on_variation  = each.value.on_variation
    off_variation = each.value.off_variation
  }

  lifecycle {
    # What is served is the product teams' and the router's to change: Terraform makes the flag, and leaves it alone.
    ignore_changes = [variations, defaults]
  }
}

# ---------------------------------------------------------------- the ledger

resource "aws_db_subnet_group" "ledger" {
  name       = "pointsman-ledger"
  subnet_ids = var.subnet_ids
}

resource "aws_security_group" "ledger" {
  name   = "pointsman-ledger"
  vpc_id = var.vpc_id

  ingress {
    from_port       = 5432
    to_port         = 5432
    protocol        = "tcp"
    security_groups = [var.router_security_group_id]
  }
}

resource "aws_db_parameter_group" "ledger" {
  name   = "pointsman-ledger"
  family = "postgres17"

  # A commit is on disk before a provider is called: the router's promise rests on it.
  parameter {
    name  = "synchronous_commit"
    value = "on"
  }
  parameter {
    name  = "rds.force_ssl"
    value = "1"
  }
  # A process that was paused in a transaction must not hold its locks for ever.
  parameter {
    name  = "idle_in_transaction_session_timeout"
    value = "60000"
  }
}

resource "aws_db_instance" "ledger" {
  identifier                   = "pointsman-ledger"
  engine                       = "postgres"
  engine_version               = "17"
  instance_class               = "db.m7g.large"
  allocated_storage            = 100
  max_allocated_storage        = 1000
  storage_type                 = "gp3"
  storage_encrypted            = true
  db_name                      = "pointsman"
  username                     = "pointsman"
  manage_master_user_password  = true
  multi_az                     = true
  db_subnet_group_name         = aws_db_subnet_group.ledger.name
  vpc_security_group_ids       = [aws_security_group.ledger.id]
  parameter_group_name         = aws_db_parameter_group.ledger.name
  backup_retention_period      = 35
  deletion_protection          = true
  skip_final_snapshot          = false
  final_snapshot_identifier    = "pointsman-ledger-last"
  performance_insights_enabled = true
  copy_tags_to_snapshot        = true
}

output "ledger_address" {
  description = "For ROUTER_DATABASE_URL: postgresql://pointsman:<password>@<this>:5432/pointsman?sslmode=verify-full"
  value       = aws_db_instance.ledger.address
}

output "ledger_password_secret" {
  description = "The secret in AWS Secrets Manager that holds the password."
  value       = aws_db_instance.ledger.master_user_secret[0].secret_arn
}
