"""Manifests in the forms in which people write them, and every way to spoil one."""

import shutil

import pytest

from cxrfast.data.datasets.interface import DataOptions
from cxrfast.data.datasets.registry import choose_layout, read_data
from cxrfast.errors import CxrfastError
from tests.data.datasets.formats.manifests import EXPECTED, NAMES, NAN, WIDE, labels, same, write


def test_wide(folder):
    source = read_data(write(folder, *WIDE))
    assert source.layout == "manifest"
    assert source.grouping == "patient"
    assert source.class_names == ("Mass", "Edema")
    assert [(r.image, r.patient) for r in source.records] == [("a.png", "1"), ("b.png", "1"), ("sub/c.png", "2")]
    assert all(record.path.is_file() for record in source.records)
    same(labels(source), EXPECTED)
    assert "data set of layout manifest" in source.notes[0]


@pytest.mark.parametrize(
    ("end", "encoding", "mark"),
    [
        ("\r\n", "utf-8-sig", ","),
        ("\n", "utf-16", ";"),
        ("\n", "utf-8", "\t"),
        ("\r\n", "utf-8", ";"),
    ],
)
def test_delimiters_and_encodings(folder, end, encoding, mark):
    source = read_data(write(folder, *(line.replace(",", mark) for line in WIDE), end=end, encoding=encoding))
    same(labels(source), EXPECTED)


def test_single_file_gzip_and_tsv(folder):
    import gzip

    (folder / "mine.csv.gz").write_bytes(gzip.compress("\n".join(WIDE).encode()))
    same(labels(read_data(folder / "mine.csv.gz")), EXPECTED)
    write(folder, *(line.replace(",", "\t") for line in WIDE), name="mine.tsv")
    same(labels(read_data(folder / "mine.tsv")), EXPECTED)


@pytest.mark.parametrize(
    "header",
    [
        "Image Index,Patient ID,Mass,Edema",
        "PATH,Subject_ID,Mass,Edema",
        "file_name, patient ,Mass,Edema",
        "image_id,PatientId,Mass,Edema",
    ],
)
def test_names_of_columns(folder, header):
    source = read_data(write(folder, header, *WIDE[1:]))
    same(labels(source), EXPECTED)
    assert [record.patient for record in source.records] == ["1", "1", "2"]


def test_words_for_labels(folder):
    lines = ("image,Mass,Edema", "a.png,True,no", "b.png,,YES", "sub/c.png,0.0,nan")
    same(labels(read_data(write(folder, *lines))), EXPECTED)


@pytest.mark.parametrize(("uncertain", "value"), [(None, NAN), ("ignore", NAN), ("zero", 0), ("one", 1)])
def test_uncertain_labels(folder, uncertain, value):
    write(folder, "image,Mass", "a.png,-1", "b.png,1.0", "sub/c.png,-1.0")
    source = read_data(folder, DataOptions(uncertain=uncertain))
    same(labels(source), {"a.png": [value], "b.png": [1], "sub/c.png": [value]})
    assert any("uncertain labels (-1), taken as" in note for note in source.notes)


def test_no_finding_column_means_that_blanks_are_absent(folder):
    write(folder, "image,No Finding,Mass,Edema", "a.png,1,,", "b.png,0,1,", "sub/c.png,,,0")
    source = read_data(folder)
    assert source.class_names == ("Mass", "Edema")
    same(labels(source), {"a.png": [0, 0], "b.png": [1, NAN], "sub/c.png": [NAN, 0]})
    write(folder, "image,No Finding,Mass", "a.png,1,1", "b.png,0,0")
    with pytest.raises(CxrfastError, match="line 2: 'No Finding' is 1 beside Mass"):
        read_data(folder)


@pytest.mark.parametrize("mark", ["|", ";", ",", ", "])
def test_long(folder, mark):
    write(folder, "image,Finding Labels", f'a.png,"Mass{mark}Edema"', "b.png,No Finding", "sub/c.png,")
    source = read_data(folder)
    assert source.class_names == ("Mass", "Edema")
    same(labels(source), {"a.png": [1, 1], "b.png": [0, 0], "sub/c.png": [NAN, NAN]})
    assert any("images without a label, whose classes are unknown: 1" in note for note in source.notes)


def test_long_spellings_of_one_finding_are_one_class(folder):
    write(folder, "image,labels", "a.png,Pleural Effusion", "b.png,effusion|Mass", "sub/c.png,no_finding")
    source = read_data(folder)
    assert source.class_names == ("Pleural Effusion", "Mass")
    same(labels(source), {"a.png": [1, 0], "b.png": [1, 1], "sub/c.png": [0, 0]})
    assert source.class_notes == ["class names matched: effusion = Pleural Effusion"]


def test_one_row_for_each_finding(folder):
    write(folder, "image,class_name", "a.png,Mass", "a.png,Edema", "b.png,No finding", "sub/c.png,Mass")
    same(labels(read_data(folder)), {"a.png": [1, 1], "b.png": [0, 0], "sub/c.png": [1, 0]})


def test_details(folder):
    write(
        folder,
        "Unnamed: 0,image,patient_id,StudyInstanceUID,split,View Position,PatientAge,Gender,width,height,Mass,comment",
        '0,a.png,1.0,7.1,training,AP,058Y,Male,"1,024","2,048",1,fine',
        "1,b.png,2.0,7.2,valid,LATERAL,47.0,f,,,0,",
        "2,sub/c.png,,,test,,414,,512,512,,bad",
    )
    source = read_data(folder, DataOptions(views="all"))
    a, b, c = source.records
    assert (a.patient, a.study, a.split, a.view, a.age, a.sex) == ("1", "7.1", "train", "AP", 58, "M")
    assert (a.width, a.height) == (1024, 2048)
    assert (b.patient, b.split, b.view, b.age, b.sex, b.width) == ("2", "val", "lateral", 47, "F", None)
    assert (c.patient, c.split, c.view, c.age) == ("image sub/c.png", "test", None, None)
    assert source.class_names == ("Mass",)
    assert any("Unnamed: 0" in note and "comment ('fine' in line 2)" in note for note in source.notes)
    assert any("images without a patient, whose study," in note and ": 1" in note for note in source.notes)
    assert any("ages over 120 years, taken as unknown: 1" in note for note in source.notes)
    assert len(read_data(folder).records) == 2  # without the lateral one


def test_blank_rows_and_repeated_findings(folder):
    write(folder, "image;class", "", "a.png;Mass", " ; ", "a.png;Mass", ";", "b.png;Normal", ";;")
    source = read_data(folder)
    same(labels(source), {"a.png": [1], "b.png": [0]})
    assert any("rows listed twice, taken once: 1" in note for note in source.notes)


def test_other_encodings_are_refused_with_a_remedy(folder):
    write(folder, "image,Ödem", "a.png,1", encoding="latin-1")
    with pytest.raises(CxrfastError, match=r"text table in UTF-8 or UTF-16 .* save it as CSV in UTF-8"):
        read_data(folder / "manifest.csv")


def test_grouping_without_patients(folder):
    write(folder, "image,study,Mass", "a.png,7,1", "b.png,7,0", "sub/c.png,8,0")
    source = read_data(folder)
    assert (source.grouping, [r.patient for r in source.records]) == ("study", ["7", "7", "8"])
    write(folder, "image,Mass", "a.png,1", "b.png,0", "sub/c.png,0")
    source = read_data(folder)
    assert (source.grouping, [r.patient for r in source.records]) == ("image", list(NAMES))


def test_columns_that_are_no_classes_are_said(folder):
    write(folder, "image,Mass,score2,dose", "a.png,1,0.3,12", "b.png,0,1,0", "sub/c.png,,0,1")
    source = read_data(folder)
    assert source.class_names == ("Mass",)
    assert any("score2 ('0.3' in line 2)" in note and "dose ('12' in line 2)" in note for note in source.notes)


def test_missing_and_extra_images(folder, make_image):
    make_image("extra.png")
    write(folder, *WIDE, "lost.png,3,1,1")
    source = read_data(folder)
    assert len(source.records) == 3
    assert any("images of manifest.csv without a file, left out: 1 (first: lost.png)" in note for note in source.notes)
    assert any("files that are not in manifest.csv, left out: 1 (first: extra.png)" in note for note in source.notes)
    kept = read_data(folder, DataOptions(images_required=False))
    assert [record.image for record in kept.records] == [*NAMES, "lost.png"]
    write(folder, "image,Mass", "x.png,1", "y.png,0")
    with pytest.raises(CxrfastError, match=r"none of its 2 images was found in .* \(first: x.png\)"):
        read_data(folder)


def test_upper_case_suffix_and_other_format(folder):
    (folder / "a.png").rename(folder / "A.PNG")
    source = read_data(write(folder, *WIDE))
    assert [record.image for record in source.records] == ["A.PNG", "b.png", "sub/c.png"]


def test_repeated_rows(folder):
    source = read_data(write(folder, *WIDE, WIDE[1]))
    same(labels(source), EXPECTED)
    assert any("rows listed twice, taken once: 1" in note for note in source.notes)
    for bad, message in [
        ("a.png,1,0,0", "line 5: image a.png has other labels than in line 2"),
        ("a.png,9,1,0", "line 5: image a.png has patient '9', but '1' in line 2"),
    ]:
        with pytest.raises(CxrfastError, match=message):
            read_data(write(folder, *WIDE, bad))
    with pytest.raises(CxrfastError, match="line 3: image a.png has other findings than in line 2"):
        read_data(write(folder, "image,labels", "a.png,Mass", "a.png,Edema"))
    with pytest.raises(CxrfastError, match="line 5: images 'a.png' and 'd' have the same path"):
        read_data(write(folder, "image,path,Mass", *(f"{n},{n},1" for n in NAMES), "d,./sub/../a.png,0"))


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (("name,Mass", "a.png,1"), "has no column 'image' \\(columns found: name, Mass\\)"),
        (("image,Mass",), "has no rows"),
        (("image,Mass", "a.png,1", "b.png,0", "sub/c.png,maybe"), "line 4: 'Mass' is 'maybe'"),
        (("image,Mass,Edema", "a.png,1"), "line 2: 2 fields, expected at least 3"),
        (("image,Mass", ",1"), "line 2: 'image' is empty"),
        (("image,split,Mass", "a.png,holdout,1"), "line 2: part of the split is 'holdout'"),
        (("image,label", "a.png,1", "b.png,0"), "column 'label' holds only the numbers 0, 1, which name no"),
        (("image,label", "a.png,2", "b.png,0"), "column 'label' holds only the numbers 0, 2, which name no"),
        (("image,labels", "a.png,Mass|No Finding"), "line 2: .*no finding beside a finding"),
        (("image,label", "a.png,Mass", "a.png,No Finding"), "line 3: image a.png has no finding in one row and Mass"),
        (("image,Effusion,Pleural Effusion", "a.png,1,0"), "mean the same finding"),
        (("image,labels,Mass", "a.png,Mass,0"), "line 2: .*column 'Mass' contradict"),
        (("image,Mass,mass", "a.png,1,0"), "has several columns 'Mass'"),
        (("image,Mass,age", "a.png,1,1,024"), "line 2: 4 fields, but the header has 3; put text with commas in quotes"),
        (("image,labels,class", "a.png,Mass,Edema"), "may both list findings"),
    ],
)
def test_what_is_refused(folder, lines, message):
    with pytest.raises(CxrfastError, match=message):
        read_data(write(folder, *lines))


def test_paths_that_lead_out_of_the_folder(folder, tmp_path_factory):
    place = tmp_path_factory.mktemp("elsewhere")
    write(place, "path,Mass", f"{folder}/a.png,1", f"{folder}/sub/c.png,0", name="mine.csv")
    source = read_data(place / "mine.csv")
    assert source.root == folder
    assert [record.image for record in source.records] == ["a.png", "sub/c.png"]
    shutil.copytree(folder / "sub", place / "sub")
    write(place, "path,Mass", "/other/machine/sub/c.png,1", name="mine.csv")
    source = read_data(place / "mine.csv")
    assert [record.image for record in source.records] == ["sub/c.png"]
    assert any("paths of mine.csv that do not exist here, sought by their ends: 1" in note for note in source.notes)


def test_name_and_path_in_two_columns(folder):
    write(folder, "image_id,path,Mass", "x1,a.png,1", "x2,sub/c.png,0", name="mine.csv")
    write(folder, "image_id,label,x,y,w,h", "x1,Mass,10,5,20,10", name="mine_boxes.csv")
    source = read_data(folder / "mine.csv")
    assert any("images in mine.csv: 2; read: 2" in note for note in source.notes)
    first, second = source.records
    assert (first.image, first.path) == ("x1", folder / "a.png")
    assert (second.image, second.path) == ("x2", folder / "sub/c.png")
    assert first.boxes == {"Mass": ((0.25, 0.25, 0.75, 0.75),)}
    write(folder, "image_id,path,Mass", "x1,a.png,1", "x2,a.png,0", name="mine.csv")
    with pytest.raises(CxrfastError, match="line 3: images 'x1' and 'x2' have the same path"):
        read_data(folder / "mine.csv")


def test_parquet(folder, monkeypatch):
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    table = pyarrow.table(
        {"image": list(NAMES), "patient": [1, 1, None], "labels": [["Mass", "Edema"], ["No Finding"], None]}
    )
    parquet.write_table(table, folder / "manifest.parquet")
    source = read_data(folder)
    same(labels(source), {"a.png": [1, 1], "b.png": [0, 0], "sub/c.png": [NAN, NAN]})
    assert [record.patient for record in source.records] == ["1", "1", "image sub/c.png"]


def test_parquet_without_its_package(folder, monkeypatch):
    for name in ("pyarrow", "pandas"):
        monkeypatch.setitem(__import__("sys").modules, name, None)
    (folder / "manifest.parquet").write_bytes(b"PAR1")
    with pytest.raises(CxrfastError, match="needs the package pyarrow"):
        read_data(folder)


def test_other_folders_are_not_taken(folder):
    write(folder, *WIDE, name="labels.csv")
    with pytest.raises(CxrfastError, match="no layout that is known"):
        choose_layout(folder)


def test_ages_in_words_are_unknown(folder):
    source = read_data(write(folder, "image,age,width,Mass", "a.png,85 or more,35.5 cm,1", "b.png,44,,0"))
    assert [(record.age, record.width) for record in source.records] == [(None, None), (44, None)]
    assert any("ages in words (first: '85 or more'), taken as unknown: 1" in note for note in source.notes)


def test_dots_between_thousands(folder):
    write(folder, "image;Mass", "a.png;1", "b.png;0")
    header = "image;label;x;y;w;h;frame_width;frame_height"
    write(folder, header, "a.png;Mass;512,0;1.024,0;512;1.024;2.048;4.096", name="boxes.csv")
    assert read_data(folder).records[0].boxes == {"Mass": ((0.25, 0.25, 0.5, 0.5),)}
    write(folder, header, "a.png;Mass;512;1.024;512;1.024;2.048;4.096", name="boxes.csv")
    with pytest.raises(CxrfastError, match=r"line 2: '1.024' may be a thousand or a fraction"):
        read_data(folder)


def test_columns_of_paths_by_format(folder):
    source = read_data(write(folder, "DicomPath,PngPath,Mass", "a.dcm,a.png,1", "b.dcm,b.png,0"))
    assert [record.image for record in source.records] == ["a.png", "b.png"]


@pytest.mark.parametrize("first", ["sep=;", '"sep=;"'])
def test_a_first_line_that_states_the_separator(folder, first):
    write(folder, first, "image;Mass, left", "a.png;1", "b.png;0", end="\r\n")
    same(labels(read_data(folder)), {"a.png": [1], "b.png": [0]})
    write(folder, first, "image;Mass", "a.png;1", "b.png;maybe", "sub/c.png;0")
    with pytest.raises(CxrfastError, match="line 4: 'Mass' is 'maybe'"):
        read_data(folder)


@pytest.mark.parametrize("column", ["findings", "label"])
def test_findings_separated_by_two_marks_are_refused(folder, column):
    write(folder, f"image;{column}", "a.png;Mass, Effusion", "b.png;Effusion|Mass")
    with pytest.raises(CxrfastError, match=f"column '{column}' holds 'Mass, Effusion' and also Mass and Effusion"):
        read_data(folder)


def test_a_class_name_with_a_comma(folder):
    source = read_data(write(folder, "image;findings", "a.png;Mass, left|Effusion", "b.png;Effusion"))
    assert source.class_names == ("Mass, left", "Effusion")


def test_a_manifest_under_another_name_is_named(folder):
    write(folder, *WIDE, name="labels.csv")
    write(folder, "a,b", "1,2", name="other.csv")
    with pytest.raises(
        CxrfastError, match=r"tables with a column of images: labels.csv; pass one .*--data .*labels.csv"
    ):
        read_data(folder)


def test_a_spreadsheet_is_refused_in_one_sentence(folder):
    (folder / "manifest.xlsx").write_bytes(b"PK\3\4")
    with pytest.raises(CxrfastError, match=r"manifest.xlsx is neither a table .* save a spreadsheet as CSV"):
        read_data(folder / "manifest.xlsx")


def test_names_of_tables_in_upper_case(folder):
    write(folder, *WIDE, name="Manifest.CSV")
    write(folder, "image,label,x,y,w,h", "a.png,Mass,0,0,0.5,0.5", name="BOXES.CSV")
    assert read_data(folder).records[0].boxes == {"Mass": ((0, 0, 0.5, 0.5),)}


def test_a_column_of_parts_that_is_none_is_named(folder):
    write(folder, "image,Set,Mass", "a.png,A,1")
    with pytest.raises(CxrfastError, match="line 2: part of the split is 'A', .* if column 'Set' is no split, rename"):
        read_data(folder)
