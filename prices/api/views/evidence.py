"""Where a price came from: the price with its evidence, and raw answers."""

from uuid import UUID

from django.http import HttpResponse
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.request import Request
from rest_framework.views import APIView

from prices.api import responses as answers
from prices.api.access.authentication import access_of
from prices.api.read_requests import PriceRequest
from prices.api.renderers import json_response
from prices.api.schema import evidence as schema
from prices.api.schema.common import problems
from prices.api.serializers import NoQuery, validated
from prices.history.evidence import read_evidence
from prices.history.raw_answers import read_answer


class PriceView(APIView):
    """GET /prices/{event_id}."""

    @extend_schema(
        operation_id="price",
        parameters=[OpenApiParameter("event_id", UUID, OpenApiParameter.PATH), PriceRequest],
        responses={200: schema.PriceWithEvidence, **problems(400, 404)},
    )
    def get(self, request: Request, event_id: str) -> HttpResponse:
        """Return a stored price, with the raw answer that it is from, the run that asked for it, its average.

        Raw answers and runs are dropped after days, prices are not: `raw` is then null and `raw_gone` true.
        `run` and `job_id` are null where no job asked, but GET /prices/latest, and where the job is of
        another client.
        """
        query = validated(PriceRequest, request.query_params)
        found = read_evidence(
            UUID(event_id), prices_as_text=query["numbers"] == "string", access=access_of(request)
        )
        return json_response(answers.price_with_evidence(found))


class RawAnswerView(APIView):
    """GET /raw/{raw_response_id}."""

    @extend_schema(
        operation_id="raw_answer",
        parameters=[OpenApiParameter("raw_response_id", UUID, OpenApiParameter.PATH)],
        responses={200: schema.RawAnswerWithBody, **problems(400, 404, 410)},
    )
    def get(self, request: Request, raw_response_id: str) -> HttpResponse:
        """Return what a provider answered, as it came but for keys, which are taken out before it is stored.

        Raw answers are dropped after days. 410 says that none is kept of the time that the id tells, 404 that
        there is none though others of its time are kept.
        """
        validated(NoQuery, request.query_params)
        return json_response(answers.raw_answer_with_body(read_answer(UUID(raw_response_id))))
