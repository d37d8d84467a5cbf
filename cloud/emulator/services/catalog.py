"""The services that only answer questions: AWS's Price List, Service Quotas and the image registry.

The price list holds the built-in table of prices in the layout of AWS's API, the quotas are those of the
simulated failures, and the registry holds the images of the built-in table.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any, Final

from cloud.aws.pricing import PriceTable, price_table
from cloud.aws.request_validation import training_instance_types
from cloud.emulator.faults import Faults
from cloud.emulator.services.api import ApiError, check_api_request
from cloud.sagemaker.container.images import image_table

_DEFAULT_QUOTA: Final = 20
_PAGE: Final = 100
# the beginning of X-Amz-Target -> the service's model
API_TARGETS: Final = {
    "AWSPriceListService": "pricing",
    "ServiceQuotasV20190624": "service-quotas",
    "AmazonEC2ContainerRegistry_V20150921": "ecr",
}


class Catalog:
    """The answers of these services."""

    def __init__(self, faults: Faults) -> None:
        self._faults = faults
        self._operations: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
            "pricing:GetProducts": self._products,
            "service-quotas:ListServiceQuotas": self._quotas,
            "ecr:BatchGetImage": self._images,
        }

    def answer(self, service: str, operation: str, request: Mapping[str, Any]) -> dict[str, Any]:
        """Execute an operation. Raises ApiError."""
        carry_out = self._operations.get(f"{service}:{operation}")
        if carry_out is None:
            raise ApiError("UnknownOperationException", f"A rehearsal knows no {operation} of {service}")
        check_api_request(service, operation, request)
        return carry_out(request)

    def _products(self, request: Mapping[str, Any]) -> dict[str, Any]:
        fields = {each["Field"]: each["Value"] for each in request.get("Filters", [])}
        region = fields.get("regionCode", "us-east-1")
        table = price_table(built_in=True)
        if request["ServiceCode"] == "AmazonSageMaker":
            found = [_training_product(table, name, region) for name in table.instances]
        else:
            found = [_product("Storage", "TimedStorage-ByteHrs", region, "GB-Mo", table.storage)]
        return _page([json.dumps(each) for each in found], request, "PriceList")

    def _quotas(self, request: Mapping[str, Any]) -> dict[str, Any]:
        value = _DEFAULT_QUOTA if self._faults.quota is None else self._faults.quota
        quotas = [
            {
                "ServiceCode": "sagemaker",
                "QuotaCode": f"L-{number:08X}",
                "QuotaName": f"{instance} for {usage} usage",
                "Value": float(0 if instance in self._faults.no_capacity else value),
                "Adjustable": True,
            }
            for number, (instance, usage) in enumerate(
                (instance, usage)
                for instance in training_instance_types()
                for usage in ("training job", "spot training job", "training warm pool")
            )
        ]
        return _page(quotas, request, "Quotas")

    def _images(self, request: Mapping[str, Any]) -> dict[str, Any]:
        tags = set(image_table()["tags"].values())
        images, failures = [], []
        for image in request["imageIds"]:
            if request["repositoryName"] == "pytorch" and image.get("imageTag") in tags:
                images.append({"repositoryName": "pytorch", "imageId": image, "imageManifest": "{}"})
            else:
                failures.append(
                    {"imageId": image, "failureCode": "ImageNotFound", "failureReason": "not found"}
                )
        return {"images": images, "failures": failures}


def _page(items: list[Any], request: Mapping[str, Any], member: str) -> dict[str, Any]:
    start = int(request.get("NextToken", "0"))
    answer = {member: items[start : start + _PAGE]}
    return answer if start + _PAGE >= len(items) else answer | {"NextToken": str(start + _PAGE)}


def _training_product(table: PriceTable, name: str, region: str) -> dict[str, Any]:
    price = table.instances[name]
    product = _product("ML Instance", f"USE1-Train:{name}", region, "Hrs", price.hourly or 0.0)
    product["product"]["attributes"]["vCpu"] = str(price.vcpus)
    return product


def _product(family: str, usage: str, region: str, unit: str, dollars: float) -> dict[str, Any]:
    dimension = {
        "unit": unit,
        "beginRange": "0",
        "endRange": "Inf",
        "pricePerUnit": {"USD": f"{dollars:.10f}"},
    }
    return {
        "product": {"productFamily": family, "attributes": {"usagetype": usage, "regionCode": region}},
        "terms": {"OnDemand": {"T": {"priceDimensions": {"D": dimension}}}},
    }
