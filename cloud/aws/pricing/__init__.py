"""Prices of instances and storage: dated tables, and AWS's Price List API, which refreshes them."""

from __future__ import annotations

from cloud.aws.pricing.table import Price, PriceTable, job_cost, price_table, unpriced_instance

__all__ = ["Price", "PriceTable", "job_cost", "price_table", "unpriced_instance"]
