"""Lists: pages and tokens, order, filters and bounds."""

from __future__ import annotations

from tests.contract.statement import assumed, documented


def summaries(account, image):
    """Return what ListImageVersions shows, by number."""
    listed = account.client.list_image_versions(ImageName=image, MaxResults=100)["ImageVersions"]
    return {version["Version"]: version for version in listed}


@documented("API Reference, ListImageVersions")
def test_versions_are_listed_newest_first(account, three):
    """By default, ListImageVersions sorts by creation time, newest first."""
    assert account.versions(three) == [3, 2, 1]
    assert account.versions(three, SortOrder="ASCENDING") == [1, 2, 3]


@documented("API Reference, ListImageVersions")
def test_versions_can_be_ordered_by_number_and_by_modification(account, three):
    """ListImageVersions can sort by VERSION and by LAST_MODIFIED_TIME."""
    account.client.update_image_version(ImageName=three, Version=1, ReleaseNotes="new")
    listed = summaries(account, three)
    by_modification = sorted(listed, key=lambda number: listed[number]["LastModifiedTime"])
    assert account.versions(three, SortBy="LAST_MODIFIED_TIME", SortOrder="ASCENDING") == by_modification
    assert account.versions(three, SortBy="VERSION") == [3, 2, 1]


@documented("API Reference, ListImageVersions")
def test_a_page_has_ten_versions_by_default(account, image):
    """By default, a page of ListImageVersions has up to 10 versions."""
    for _ in range(11):
        account.create_version(image)
    page = account.client.list_image_versions(ImageName=image)
    assert [version["Version"] for version in page["ImageVersions"]] == list(range(11, 1, -1))
    assert page["NextToken"]
    assert len(summaries(account, image)) == 11


@documented("API Reference, ListImageVersions")
def test_pages_show_each_version_once(account, three):
    """Across pages, ListImageVersions returns each version once."""
    assert account.versions(three, MaxResults=1) == [3, 2, 1]
    assert account.versions(three, MaxResults=2) == [3, 2, 1]


@documented("API Reference, ListImageVersions: NextToken is present if the response is truncated")
def test_the_last_page_has_no_token(account, three):
    """The last page has no NextToken, even if it is full."""
    assert "NextToken" not in account.client.list_image_versions(ImageName=three, MaxResults=3)


@documented("aws-samples/sagemaker-custom-project-templates sends it with the first call")
def test_an_empty_token_is_none(account, three):
    """An empty NextToken returns the first page."""
    page = account.client.list_image_versions(ImageName=three, MaxResults=1, NextToken="")
    assert [version["Version"] for version in page["ImageVersions"]] == [3]


@assumed("other AWS APIs reject it; the package never sends such a token")
def test_a_token_is_valid_for_its_own_query(account, three):
    """A NextToken that is sent with another sort order fails with ValidationException."""
    token = account.client.list_image_versions(ImageName=three, MaxResults=1)["NextToken"]
    code, _ = account.refused("list_image_versions", ImageName=three, SortOrder="ASCENDING", NextToken=token)
    assert code == "ValidationException"


@assumed("not documented; at each poll, the package reads the list from its start")
def test_a_token_keeps_its_place(account, three):
    """If a version is created between two pages, no other version is repeated or missing."""
    first = account.client.list_image_versions(ImageName=three, MaxResults=2)
    account.create_version(three)
    rest = account.client.list_image_versions(ImageName=three, MaxResults=2, NextToken=first["NextToken"])
    assert [version["Version"] for version in rest["ImageVersions"]] == [1]


@documented("API Reference, ListImageVersions: `on or after`, `on or before`")
def test_bounds_of_the_creation_time_are_inclusive(account, three):
    """CreationTimeAfter and CreationTimeBefore are inclusive, to the millisecond."""
    at = summaries(account, three)[2]["CreationTime"]
    assert account.versions(three, CreationTimeAfter=at.isoformat()) == [3, 2]
    assert account.versions(three, CreationTimeBefore=at.isoformat()) == [2, 1]


@documented("API Reference, ListImageVersions: `on or after`, `on or before`")
def test_bounds_of_the_modification_time_are_inclusive(account, three):
    """LastModifiedTimeAfter and LastModifiedTimeBefore are inclusive."""
    at = summaries(account, three)[2]["LastModifiedTime"]
    assert account.versions(three, LastModifiedTimeAfter=at.isoformat()) == [3, 2]
    assert account.versions(three, LastModifiedTimeBefore=at.isoformat()) == [2, 1]


@documented("API Reference, ListImages")
def test_images_are_found_by_a_part_of_their_name(account):
    """NameContains of ListImages returns images whose names contain the text."""
    name = account.create_image(account.new_name("-part"))
    account.create_image(account.new_name("-other"))
    listed = account.client.list_images(NameContains=name.removeprefix("airflow"))["Images"]
    assert [image["ImageName"] for image in listed] == [name]


@documented("API Reference, ListImages")
def test_images_are_listed_newest_first(account):
    """By default, ListImages sorts by creation time, newest first; IMAGE_NAME sorts by name."""
    common = account.new_name()
    first, second = (account.create_image(common + suffix) for suffix in ("-b", "-a"))

    def names(**query):
        return [image["ImageName"] for image in account.client.list_images(NameContains=common, **query)["Images"]]

    assert names() == [second, first]
    assert names(SortBy="IMAGE_NAME", SortOrder="DESCENDING") == [first, second]
    assert names(SortOrder="ASCENDING") == [first, second]
